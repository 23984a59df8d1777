//! A failed commit: its error and the step that failed, which together determine the remedy. The same SQLSTATE is the
//! fault of a record in its projection, and never in custody.

use crate::ingest::lifecycle::{Remedy, StoreError};
use crate::postgres::remedy::{Cure, DatabaseError};
use crate::record::reject::{Reason, Rejection};

/// Where a commit failed: only a projection can find fault with a record.
pub(crate) struct CommitFailure {
    pub(crate) error: DatabaseError,
    at_projection: bool,
}

impl CommitFailure {
    pub(crate) fn of_custody(error: DatabaseError) -> Self {
        Self { error, at_projection: false }
    }

    pub(crate) fn of_projection(error: sqlx::Error) -> Self {
        Self { error: DatabaseError::new(error), at_projection: true }
    }

    /// A row with the same key is there.
    fn is_of_a_key(&self) -> bool {
        self.error.code.as_deref() == Some("23505")
    }

    /// A record has an id that is taken. A sequence that lags behind its table is another matter.
    pub(crate) fn is_of_a_taken_id(&self) -> bool {
        self.at_projection && self.is_of_a_key() && self.error.cure == Cure::Record
    }

    pub(crate) fn cure(&self) -> Cure {
        match self.error.cure {
            // Another instance stored the same messages between our look and our write.
            Cure::Record if !self.at_projection && self.is_of_a_key() => Cure::Time,
            Cure::Record if !self.at_projection => Cure::Operator,
            cure => cure,
        }
    }

    pub(crate) fn into_store_error(self) -> StoreError {
        let remedy = match self.cure() {
            Cure::Time => Remedy::Retry,
            Cure::SmallerBatch => Remedy::Halve,
            Cure::References => Remedy::AwaitReferences,
            Cure::Position => Remedy::Rewind,
            Cure::Record | Cure::Operator => Remedy::Operator,
        };
        StoreError { remedy, what: self.error.to_string() }
    }
}

impl From<sqlx::Error> for CommitFailure {
    fn from(error: sqlx::Error) -> Self {
        Self::of_custody(DatabaseError::new(error))
    }
}

/// How a record is rejected that the database alone refuses.
pub(crate) fn rejection(error: &DatabaseError) -> Rejection {
    let reason =
        if error.code.as_deref() == Some("23503") { Reason::UnknownReference } else { Reason::DatabaseRejected };
    let constraint = error.constraint.as_ref().map(|name| format!(", constraint {name}")).unwrap_or_default();
    Rejection::new(reason, &format!("PostgreSQL takes other records and refuses this one: {error}{constraint}"))
}
