//! The state of a dead letter, and the decisions that it permits: to requeue or to discard it. The rules prevent
//! endless requeues.

use crate::record::message::Incarnation;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionAction {
    /// To publish it again.
    Requeued,
    /// To let it rest.
    Discarded,
}

impl DecisionAction {
    /// As the database calls it.
    pub const fn name(self) -> &'static str {
        match self {
            DecisionAction::Requeued => "REQUEUED",
            DecisionAction::Discarded => "DISCARDED",
        }
    }

    /// As the Action Registry calls the event that records it.
    pub const fn event(self) -> &'static str {
        match self {
            DecisionAction::Requeued => "DEAD_LETTER_REQUEUED",
            DecisionAction::Discarded => "DEAD_LETTER_DISCARDED",
        }
    }
}

/// How a dead letter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterState {
    Open,
    /// It is to be published again, and nobody saw the stream confirm that.
    Unfinished,
    /// It was published again.
    Requeued,
    Discarded,
}

impl LetterState {
    pub const ALL: [LetterState; 4] =
        [LetterState::Open, LetterState::Unfinished, LetterState::Requeued, LetterState::Discarded];

    pub const fn name(self) -> &'static str {
        match self {
            LetterState::Open => "open",
            LetterState::Unfinished => "unfinished",
            LetterState::Requeued => "requeued",
            LetterState::Discarded => "discarded",
        }
    }

    /// The state that has this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for LetterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of the message that a requeue published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecisionOutcome {
    /// The ledger does not have it (yet).
    Awaited,
    /// It is a record now, or is one already.
    Accepted,
    /// It is a dead letter again, under this reference.
    Rejected(String),
}

/// How a dead letter stands, and how it came to be.
#[derive(Clone, Debug)]
pub struct Standing {
    pub state: LetterState,
    /// Decisions about it so far.
    pub rounds: i32,
    /// The stable code of its reject.
    pub reason: String,
    /// The dead letters that it was requeued from, the nearest first: reference and reason.
    pub origins: Vec<(String, String)>,
    /// What became of its last requeue, and into which incarnation of the stream that went, under which sequence.
    pub requeued: Option<(DecisionOutcome, i64, i64)>,
    /// The stream that it came from: `None` where no server ever had it.
    pub incarnation: Option<Incarnation>,
}

/// How often one record is published again, at most.
pub const REQUEUES_MAX: usize = 10;

/// What an operator says besides "requeue".
#[derive(Clone, Copy, Debug, Default)]
pub struct RequeueOptions {
    /// That it is to be done once more.
    pub again: bool,
    /// That other bytes are to be published.
    pub replaces: bool,
}

/// The stream into which a letter is to go.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// As it is now.
    pub incarnation: &'a Incarnation,
    /// It has the message of the last requeue.
    pub has_the_last: bool,
}

impl Standing {
    /// The message of its last requeue, if the ledger waits for it and this incarnation of the stream may have it.
    pub fn awaited_in(&self, stream: &Incarnation) -> Option<i64> {
        match &self.requeued {
            Some((DecisionOutcome::Awaited, created_ns, sequence)) if *created_ns == stream.created_ns => {
                Some(*sequence)
            }
            _ => None,
        }
    }

    /// Whether it may be requeued into this stream.
    ///
    /// # Errors
    /// A sentence that says why not, and what to do.
    pub fn admit_requeue(&self, stream: Destination<'_>, options: RequeueOptions) -> Result<(), String> {
        let RequeueOptions { again, replaces } = options;
        if self.incarnation.is_none() {
            return Err("it is an event of the program's own, which no stream takes".to_owned());
        }
        match (self.state, &self.requeued) {
            (LetterState::Unfinished, _) => {
                return Err("a requeue of it was decided, and is to be finished first".to_owned());
            }
            (LetterState::Discarded, _) if !again => {
                return Err("it was discarded; say --again to requeue it all the same".to_owned());
            }
            (LetterState::Requeued, Some((DecisionOutcome::Accepted, ..))) => {
                return Err("it was requeued, and accepted".to_owned());
            }
            (LetterState::Requeued, Some((DecisionOutcome::Rejected(reference), ..))) => {
                return Err(format!("it was requeued, and rejected again as {reference}: requeue that one"));
            }
            (LetterState::Requeued, _) if self.awaited_in(stream.incarnation).is_some() && stream.has_the_last => {
                return Err("it was requeued, and is in the stream on its way".to_owned());
            }
            (LetterState::Requeued, _) if !again => {
                let what = "it was requeued, and neither the stream nor the ledger has it";
                return Err(format!("{what}; say --again to requeue it once more"));
            }
            _ => {}
        }
        let rounds = self.origins.len() + usize::try_from(self.rounds).unwrap_or(0);
        if rounds >= REQUEUES_MAX {
            return Err(format!(
                "it came back {rounds} times: publish a corrected record instead, and discard this one"
            ));
        }
        match self.origins.first() {
            Some((origin, reason)) if *reason == self.reason && !again && !replaces => Err(format!(
                "it was requeued from {origin} and rejected for the same reason; remove the cause, then say --again"
            )),
            _ => Ok(()),
        }
    }

    /// Whether it may be discarded.
    ///
    /// # Errors
    /// A sentence that says why not, and what to do.
    pub fn admit_discard(&self) -> Result<(), String> {
        match (self.state, &self.requeued) {
            (LetterState::Open, _) => Ok(()),
            (LetterState::Unfinished, _) => Err("its requeue is not finished: `dlq requeue` finishes it".to_owned()),
            (LetterState::Requeued, Some((DecisionOutcome::Rejected(reference), ..))) => {
                Err(format!("it was requeued, and rejected again as {reference}: discard that one"))
            }
            (LetterState::Requeued, _) => Err("it was requeued".to_owned()),
            (LetterState::Discarded, _) => Err("it was discarded already".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn stream(created_ns: i64) -> Incarnation {
        Incarnation { stream: Arc::from("LEDGER"), created_ns }
    }

    fn open() -> Standing {
        Standing {
            state: LetterState::Open,
            rounds: 0,
            reason: "unknown_reference".to_owned(),
            origins: Vec::new(),
            requeued: None,
            incarnation: Some(stream(1)),
        }
    }

    fn requeued(outcome: DecisionOutcome) -> Standing {
        Standing { state: LetterState::Requeued, rounds: 1, requeued: Some((outcome, 1, 9)), ..open() }
    }

    fn admitted(standing: &Standing, created_ns: i64, options: RequeueOptions) -> Result<(), String> {
        let incarnation = stream(created_ns);
        standing.admit_requeue(Destination { incarnation: &incarnation, has_the_last: true }, options)
    }

    const PLAIN: RequeueOptions = RequeueOptions { again: false, replaces: false };
    const AGAIN: RequeueOptions = RequeueOptions { again: true, replaces: false };
    const REPLACED: RequeueOptions = RequeueOptions { again: false, replaces: true };

    #[test]
    fn what_came_back_for_the_same_reason_is_not_requeued_without_a_word() {
        let back = |reason: &str| Standing { origins: vec![("1-1".to_owned(), reason.to_owned())], ..open() };
        let ok = |standing: &Standing, options| admitted(standing, 1, options).is_ok();
        assert!(ok(&open(), PLAIN));
        assert!(ok(&back("conflict"), PLAIN));
        assert!(!ok(&back("unknown_reference"), PLAIN));
        assert!(ok(&back("unknown_reference"), AGAIN) && ok(&back("unknown_reference"), REPLACED));
        let many = Standing { origins: vec![("1-1".to_owned(), "conflict".to_owned()); REQUEUES_MAX], ..open() };
        assert!(!ok(&many, PLAIN) && !ok(&many, AGAIN) && !ok(&many, REPLACED));
    }

    #[test]
    fn what_was_requeued_is_not_requeued_a_second_time() {
        let why =
            |outcome, created_ns, options| admitted(&requeued(outcome), created_ns, options).err().unwrap_or_default();
        assert_eq!(why(DecisionOutcome::Accepted, 2, AGAIN), "it was requeued, and accepted");
        assert!(why(DecisionOutcome::Rejected("1-7".to_owned()), 2, AGAIN).contains("again as 1-7"));
        assert!(why(DecisionOutcome::Awaited, 1, AGAIN).contains("on its way"));
        // It went with the stream.
        assert!(why(DecisionOutcome::Awaited, 2, PLAIN).contains("say --again"));
        assert_eq!(why(DecisionOutcome::Awaited, 2, AGAIN), "");
        // It was taken out of the stream before anybody read it.
        let incarnation = stream(1);
        let without = Destination { incarnation: &incarnation, has_the_last: false };
        let lost = requeued(DecisionOutcome::Awaited);
        assert!(lost.admit_requeue(without, PLAIN).is_err_and(|why| why.contains("say --again")));
        assert!(lost.admit_requeue(without, AGAIN).is_ok());
    }

    #[test]
    fn only_what_is_open_is_discarded_and_what_was_discarded_can_be_called_back() {
        let discarded = Standing { state: LetterState::Discarded, rounds: 1, ..open() };
        assert!(open().admit_discard().is_ok());
        assert!(discarded.admit_discard().is_err() && requeued(DecisionOutcome::Awaited).admit_discard().is_err());
        assert!(admitted(&discarded, 1, PLAIN).is_err());
        assert!(admitted(&discarded, 1, AGAIN).is_ok());
        let unfinished = Standing { state: LetterState::Unfinished, rounds: 1, ..open() };
        assert!(admitted(&unfinished, 1, AGAIN).is_err() && unfinished.admit_discard().is_err());
        let own = Standing { incarnation: None, ..open() };
        assert!(admitted(&own, 1, AGAIN).is_err());
    }
}
