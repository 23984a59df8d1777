//! What an operator decides on the pages: dead letters are published again or let rest, over connections of its own.

use crate::command::{Exit, Failure, connect};
use crate::config::Config;
use crate::dead_letter::deciding::{Deciding, Requeued, Requeuing};
use crate::dead_letter::queries::{self as letters, LetterSummary};
use crate::dead_letter::recording;
use crate::dead_letter::requeue::RecordStream;
use crate::ingest::store::Ledger;
use crate::postgres::schema;

/// The connections with which decisions are carried out.
#[derive(Debug)]
pub(crate) struct Operator {
    ledger: Ledger,
    config: Config,
}

/// What somebody wants to do with a dead letter.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) leaf_index: i64,
    pub(crate) what: Wished,
    /// Whose decision it is.
    pub(crate) by: String,
    pub(crate) why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wished {
    /// To publish it, also where that was done before.
    Requeue {
        again: bool,
    },
    Discard,
}

/// What came of a wish, or would.
#[derive(Debug)]
pub(crate) enum Granted {
    /// A preview: this would be done.
    Would,
    /// It is done, and recorded.
    Done,
    /// It may not be done; a sentence says why.
    Refused(String),
}

/// Decisions at a time: one that is recorded uses two connections.
const CONNECTIONS_MAX: usize = 4;

impl Operator {
    /// `None`: no login is set for decisions, so the console only reads.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, Failure> {
        let Some(connections) = connect::operator(config, CONNECTIONS_MAX)? else { return Ok(None) };
        let ledger = Ledger::new(connections, config.budget.clone());
        Ok(Some(Self { ledger, config: config.clone() }))
    }

    /// Says what a wish would do, and does nothing.
    pub(crate) async fn preview(&self, wish: &Wish) -> Result<Granted, Failure> {
        self.decide(wish, true).await
    }

    /// Does it, once, and records it.
    pub(crate) async fn carry_out(&self, wish: &Wish) -> Result<Granted, Failure> {
        recording::record_what_is_unrecorded(&self.ledger).await?;
        let granted = self.decide(wish, false).await?;
        tracing::info!(leaf = wish.leaf_index, by = wish.by, "a decision about a dead letter: {granted:?}");
        Ok(granted)
    }

    async fn decide(&self, wish: &Wish, dry_run: bool) -> Result<Granted, Failure> {
        let letter = self.letter(wish.leaf_index).await?;
        let deciding = Deciding { ledger: &self.ledger, by: &wish.by, why: Some(&wish.why), dry_run };
        match wish.what {
            Wished::Discard => Ok(match Box::pin(deciding.discard(&letter)).await? {
                Err(why) => Granted::Refused(why),
                Ok(()) if dry_run => Granted::Would,
                Ok(()) => Granted::Done,
            }),
            Wished::Requeue { again } => {
                let stream = RecordStream::new(connect::nats(&self.config).await?, &self.config.nats.stream);
                let requeuing = Requeuing { deciding, stream, again, replacement: None };
                Ok(match Box::pin(requeuing.requeue(&letter)).await? {
                    Requeued::Refused(why) => Granted::Refused(why),
                    Requeued::Would { .. } => Granted::Would,
                    Requeued::Done { .. } => Granted::Done,
                })
            }
        }
    }

    async fn letter(&self, leaf_index: i64) -> Result<LetterSummary, Failure> {
        let connections = self.ledger.connections();
        if let Some(complaint) = schema::state(connections).await?.complaint() {
            return Err(Failure::new(Exit::Configuration, complaint));
        }
        let found = letters::at_leaf(connections, leaf_index).await?;
        found.ok_or_else(|| Failure::new(Exit::Failed, format!("entry {leaf_index} is no dead letter")))
    }

    /// The stream into which a requeue publishes.
    pub(crate) fn stream(&self) -> &str {
        &self.config.nats.stream
    }
}
