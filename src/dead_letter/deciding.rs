//! Carries out decisions about dead letters. The command and the console decide through it.
//!
//! First a decision is entered, then it is recorded, then the message of a requeue is published, then its position is
//! noted. After a kill at any step, the next requeue of the same dead letter continues from there.

use crate::command::{Exit, Failure};
use crate::dead_letter::decisions::{self, Decision, Proposal, Proposed};
use crate::dead_letter::queries as dead_letters;
use crate::dead_letter::queries::LetterSummary;
use crate::dead_letter::recording::{self, RIVALS_MAX};
use crate::dead_letter::requeue::{RecordStream, Return, SearchResult, Unreturned};
use crate::dead_letter::resolution::{Destination, LetterState, RequeueOptions};
use crate::ingest::store::Ledger;
use crate::outbox::queue as outbox;
use crate::record::dead_letter::DeadLetter;
use crate::record::digest::sha256;
use crate::record::message::Position;
use crate::record::subject::Subject;

/// What became of one letter.
#[derive(Debug)]
pub(crate) enum Requeued {
    /// It is in the stream.
    Done { at: Position, was_unfinished: bool },
    /// It would be.
    Would { was_unfinished: bool },
    /// It may not be.
    Refused(String),
}

/// What is decided alike about any letter, and who decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deciding<'a> {
    pub(crate) ledger: &'a Ledger,
    pub(crate) by: &'a str,
    pub(crate) why: Option<&'a str>,
    /// Say what would be done, and do nothing.
    pub(crate) dry_run: bool,
}

impl Deciding<'_> {
    /// Discards one; the inner error says why it may not be.
    pub(crate) async fn discard(&self, letter: &LetterSummary) -> Result<Result<(), String>, Failure> {
        let connections = self.ledger.connections();
        for _ in 0..RIVALS_MAX {
            let standing = dead_letters::standing(connections, letter).await?;
            let admitted = standing.admit_discard();
            if admitted.is_err() || self.dry_run {
                return Ok(admitted);
            }
            let proposal = Proposal {
                leaf_index: letter.leaf_index,
                rounds: standing.rounds,
                by: self.by,
                why: self.why,
                what: Proposed::Discard,
            };
            if let Some(decision) = decisions::decide(connections, &proposal).await? {
                recording::record(self.ledger, &decision).await?;
                return Ok(Ok(()));
            }
        }
        Err(recording::conflicting_decision(&letter.reference))
    }
}

/// The same of letters that are to be published again.
#[derive(Debug)]
pub(crate) struct Requeuing<'a> {
    pub(crate) deciding: Deciding<'a>,
    pub(crate) stream: RecordStream,
    /// Once more: what was discarded, what came back for the same reason, or what went with its stream.
    pub(crate) again: bool,
    /// The bytes that take the place of the original's.
    pub(crate) replacement: Option<Vec<u8>>,
}

impl Requeuing<'_> {
    /// Publishes one again, once: what an earlier run began is finished.
    pub(crate) async fn requeue(&self, letter: &LetterSummary) -> Result<Requeued, Failure> {
        for _ in 0..RIVALS_MAX {
            let unfinished = decisions::unfinished(self.deciding.ledger.connections(), letter.leaf_index).await?;
            let was_unfinished = unfinished.is_some();
            let decision = match unfinished {
                Some(_) if self.replacement.is_some() => {
                    let why = "an earlier requeue of it is not finished: finish that first, without --payload";
                    return Ok(Requeued::Refused(why.to_owned()));
                }
                Some(_) if self.deciding.dry_run => return Ok(Requeued::Would { was_unfinished }),
                Some(decision) => decision,
                None => match self.decide(letter).await? {
                    Decided::Yes(decision) => decision,
                    Decided::No(done) => return Ok(done),
                    Decided::Outrun => continue,
                },
            };
            recording::record(self.deciding.ledger, &decision).await?;
            let at = self.carry_out(&decision).await?;
            return Ok(Requeued::Done { at, was_unfinished });
        }
        Err(recording::conflicting_decision(&letter.reference))
    }

    async fn decide(&self, letter: &LetterSummary) -> Result<Decided, Failure> {
        let connections = self.deciding.ledger.connections();
        let replacement = self.replacement.as_deref();
        let standing = dead_letters::standing(connections, letter).await?;
        if standing.state == LetterState::Unfinished {
            // Since we looked.
            return Ok(Decided::Outrun);
        }
        let stand = self.stream.stand().await?;
        let options = RequeueOptions { again: self.again, replaces: replacement.is_some() };
        let whole = outbox::read::<DeadLetter>(connections, letter.leaf_index).await?;
        let incarnation = &stand.last.incarnation;
        let has_the_last = match standing.awaited_in(incarnation) {
            Some(sequence) => self.stream.holds(incarnation, sequence).await?,
            None => false,
        };
        let admitted = standing
            .admit_requeue(Destination { incarnation, has_the_last }, options)
            .and_then(|()| match Subject::parse(&letter.subject) {
                Some(subject) if is_plain(subject.actor) => Ok(()),
                _ => Err("its subject is none that can be published to: publish a corrected record instead".to_owned()),
            })
            .and_then(|()| stand.admit(&whole, replacement.unwrap_or(&whole.payload)));
        if let Err(why) = admitted {
            return Ok(Decided::No(Requeued::Refused(why)));
        }
        if self.deciding.dry_run {
            return Ok(Decided::No(Requeued::Would { was_unfinished: false }));
        }
        let proposal = Proposal {
            leaf_index: letter.leaf_index,
            rounds: standing.rounds,
            by: self.deciding.by,
            why: self.deciding.why,
            what: Proposed::Requeue { from: &stand.last, replacement },
        };
        Ok(decisions::decide(connections, &proposal).await?.map_or(Decided::Outrun, Decided::Yes))
    }

    /// Brings the message into the stream, unless it is there, and notes where.
    async fn carry_out(&self, decision: &Decision) -> Result<Position, Failure> {
        let connections = self.deciding.ledger.connections();
        let requeue = decision.requeue.as_ref().expect("what was discarded is not carried out");
        let letter = outbox::read::<DeadLetter>(connections, decision.leaf_index).await?;
        let payload = requeue.replacement.as_deref().unwrap_or(&letter.payload);
        let returned = Return { letter: &letter, payload, message_id: &requeue.message_id, from: &requeue.from };
        let unfinished = |why: Unreturned| {
            let exit = if matches!(why, Unreturned::Away(_)) { Exit::Unavailable } else { Exit::Failed };
            let again = format!("`ledgerd dlq requeue {} --by NAME` finishes what was decided", decision.reference);
            Failure::new(exit, format!("NATS: {why}; {again}"))
        };
        let at = match self.stream.look(&returned).await.map_err(|error| unfinished(error.into()))? {
            SearchResult::Found(at) => at,
            SearchResult::Absent(absent) => {
                let hash = sha256(payload);
                // The stream may have given it up since, and custody has it.
                match decisions::arrived(connections, &requeue.message_id, &letter.subject, &hash).await? {
                    Some(at) => at,
                    None => self.stream.publish(&returned, absent).await.map_err(unfinished)?,
                }
            }
        };
        decisions::settle(connections, decision, &at).await?;
        Ok(at)
    }
}

enum Decided {
    Yes(Decision),
    No(Requeued),
    /// Somebody else decided first.
    Outrun,
}

/// A token that is one, to every server: no wildcard, and nothing that was made storable.
fn is_plain(actor: &str) -> bool {
    !actor.contains(|character: char| {
        character.is_whitespace() || character.is_control() || "*>\u{fffd}".contains(character)
    })
}
