//! The remedy for each database error: one table that maps SQLSTATE to remedy.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Time: the server is away, starting, out of room, or two transactions met.
    Time,
    /// The record: its values do not fit.
    Record,
    /// Time too; and fewer rows, which one statement can handle within its bound.
    SmallerBatch,
    /// Another lane, which may bring what a record refers to.
    References,
    /// The reader of the lane: the rows do not follow on the stored position.
    Position,
    /// An operator: a grant, a table, a setting.
    Operator,
}

/// An error of the database, in one sentence, with its cure.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct DatabaseError {
    pub(crate) cure: Cure,
    pub(crate) code: Option<String>,
    pub(crate) constraint: Option<String>,
    /// The server says no, and will go on saying so.
    is_refusal: bool,
    what: String,
}

impl DatabaseError {
    /// While talking to a server.
    pub(crate) fn new(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().map(std::borrow::Cow::into_owned);
                let constraint = refusal.constraint().map(str::to_owned);
                let cure = code.as_deref().map_or(Cure::Operator, |code| cure(code, constraint.as_deref()));
                let hint = code.as_deref().and_then(hint).map(|hint| format!("; {hint}")).unwrap_or_default();
                let what = format!("{} (SQLSTATE {}){hint}", refusal.message(), code.as_deref().unwrap_or("unknown"));
                let is_refusal = code.as_deref().is_some_and(|code| code.starts_with("28") || code == "3D000");
                Self { cure, code, constraint, is_refusal, what }
            }
            sqlx::Error::Io(error) => Self::of_the_world(format!("the connection failed: {error}")),
            sqlx::Error::Tls(error) => Self::of_the_world(format!("TLS failed: {error}")),
            sqlx::Error::Protocol(error) => Self::of_the_world(format!("the conversation broke off: {error}")),
            error => {
                Self { cure: Cure::Operator, code: None, constraint: None, is_refusal: false, what: error.to_string() }
            }
        }
    }

    pub(crate) fn connecting(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(error) => Self::of_the_world(format!("cannot connect: {error}")),
            error => Self::new(error),
        }
    }

    /// No answer came in time.
    pub(crate) fn silent(doing: &str, limit: Duration) -> Self {
        Self::of_the_world(format!("no answer while {doing} within {} s", limit.as_secs_f32()))
    }

    /// The server or the network fails; by and by it will not.
    pub(crate) fn of_the_world(what: String) -> Self {
        Self { cure: Cure::Time, code: None, constraint: None, is_refusal: false, what }
    }

    /// A record refers to what is not there yet.
    pub(crate) fn of_a_reference(what: String) -> Self {
        Self { cure: Cure::References, ..Self::of_the_world(what) }
    }

    /// Rows do not follow on the position of their lane.
    pub(crate) fn of_a_position(what: String) -> Self {
        Self { cure: Cure::Position, ..Self::of_the_world(what) }
    }

    /// Something in the database is not as the migrations made it.
    pub(crate) fn of_the_operator(what: String) -> Self {
        Self { cure: Cure::Operator, code: None, constraint: None, is_refusal: false, what }
    }

    /// The database can never hold a ledger as it is.
    pub(crate) fn unusable(what: String) -> Self {
        Self { is_refusal: true, ..Self::of_the_operator(what) }
    }

    /// None of the hosts of a URL would do. If one was merely away, the others' word is not the last.
    pub(crate) fn of_all_hosts(failures: Vec<Self>) -> Self {
        let what = failures.iter().map(|failure| failure.what.as_str()).collect::<Vec<_>>().join("; ");
        let away = failures.iter().any(Self::is_absence);
        match failures.into_iter().next_back() {
            Some(last) if !away => Self { what, ..last },
            _ => Self::of_the_world(what),
        }
    }

    /// The server knows the caller and sends it away, or has no such database: waiting would not help.
    pub fn is_refusal(&self) -> bool {
        self.is_refusal
    }

    /// Time helps: the server is away, silent, out of room, or somebody holds a lock.
    pub fn is_absence(&self) -> bool {
        matches!(self.cure, Cure::Time | Cure::SmallerBatch)
    }
}

/// The constraint tells a record that breaks a rule from a table that has no partition for it (both are 23514), and from a
/// sequence that lags behind its table, as after a restore.
fn cure(code: &str, constraint: Option<&str>) -> Cure {
    match (code, constraint) {
        ("40001" | "40P01" | "55P03", _) => Cure::Time,
        // 22023 is what a trigger of the operator's hears from its own calls, pg_notify for one; no value of ours brings it about.
        ("23514", None) | ("22023", _) => Cure::Operator,
        ("23505", Some(key)) if key.ends_with("_pkey") => Cure::Operator,
        // A statement, an idle transaction, a whole transaction ran into its timeout.
        ("57014" | "25P03" | "25P04", _) => Cure::SmallerBatch,
        _ => match &code[..code.len().min(2)] {
            "08" | "53" | "57" | "58" => Cure::Time,
            "22" | "23" | "54" => Cure::Record,
            _ => Cure::Operator,
        },
    }
}

fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "42501" => "let the owner run `ledgerd migrate --grant ROLE` for the daemon's role",
        "42P01" | "42703" | "3F000" => "let the owner run `ledgerd migrate`, or restore what was dropped",
        "25006" => "the server takes no writes: a standby, or default_transaction_read_only is on",
        "53100" => "the disk of the database is full",
        "53300" => "raise max_connections, or close other connections",
        "57014" => "a statement ran into its timeout: look for a lock or an overloaded disk",
        "55P03" => "another session holds a lock: look into pg_locks",
        "28P01" | "28000" => "check user and password in database.url",
        "3D000" => "create the database, or correct database.url",
        _ => return None,
    })
}

/// An error, with what to run where the role may not.
pub(crate) fn advised(error: sqlx::Error, advice: &str) -> DatabaseError {
    match &error {
        sqlx::Error::Database(refusal) if refusal.code().as_deref() == Some("42501") => {
            DatabaseError::of_the_operator(format!("{}: {advice}", refusal.message()))
        }
        _ => DatabaseError::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_records_own_fault_is_blamed_on_the_record() {
        for (code, constraint, expected) in [
            ("22P05", None, Cure::Record),
            ("22001", None, Cure::Record),
            ("22023", None, Cure::Operator),
            ("23514", Some("some_check"), Cure::Record),
            ("23503", Some("some_key"), Cure::Record),
            ("54000", None, Cure::Record),
            ("23514", None, Cure::Operator),
            ("42501", None, Cure::Operator),
            ("42P01", None, Cure::Operator),
            ("25006", None, Cure::Operator),
            ("28P01", None, Cure::Operator),
            ("XX001", None, Cure::Operator),
            ("0A000", None, Cure::Operator),
            ("08006", None, Cure::Time),
            ("40001", None, Cure::Time),
            ("40P01", None, Cure::Time),
            ("53100", None, Cure::Time),
            ("53300", None, Cure::Time),
            ("55P03", None, Cure::Time),
            ("57014", None, Cure::SmallerBatch),
            ("25P03", None, Cure::SmallerBatch),
            ("25P04", None, Cure::SmallerBatch),
            ("23505", Some("audit_events_pkey"), Cure::Operator),
            ("23505", Some("decision_trails_pkey"), Cure::Operator),
            ("23505", Some("one_task_each"), Cure::Record),
            ("57P01", None, Cure::Time),
            ("57P03", None, Cure::Time),
            ("58030", None, Cure::Time),
        ] {
            assert_eq!(cure(code, constraint), expected, "{code}");
        }
    }
}
