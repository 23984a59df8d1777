//! `ledgerd dlq requeue`: publishes dead letters again, each exactly once.
//!
//! First the decision is entered, then it is recorded, then the message is published, then its position is noted. After
//! a kill at any step, the next run for the same dead letter continues from there.

use crate::command::{connect, output};
use crate::config::Config;
use crate::dead_letter::command::decision::{self, RIVALS_MAX};
use crate::dead_letter::command::which::Selection;
use crate::dead_letter::command::{Exit, Failure};
use crate::dead_letter::decisions as resolution;
use crate::dead_letter::decisions::{Decision, Proposal, Proposed};
use crate::dead_letter::queries as dead_letters;
use crate::dead_letter::queries::LetterSummary;
use crate::dead_letter::requeue::{RecordStream, Return, SearchResult, Unreturned};
use crate::dead_letter::resolution::{Destination, LetterState, RequeueOptions};
use crate::ingest::store::Ledger;
use crate::outbox::queue as outbox;
use crate::record::dead_letter::DeadLetter;
use crate::record::digest::sha256;
use crate::record::message::Position;
use crate::record::subject::Subject;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(crate) struct RequeueArguments {
    #[command(flatten)]
    selection: Selection,
    /// Who decides
    #[arg(long, value_name = "NAME", value_parser = decision::name)]
    by: String,
    /// Why
    #[arg(long, value_name = "TEXT", value_parser = decision::reason)]
    why: Option<String>,
    /// Publish the bytes of this file in place of the original's; for one dead letter, which stays as it is
    #[arg(long, value_name = "FILE", requires = "why", requires = "references", conflicts_with = "all_matching")]
    payload: Option<PathBuf>,
    /// Once more: what was discarded, what came back for the same reason, or what went with its stream
    #[arg(long)]
    again: bool,
}

/// No stream takes more.
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

pub(crate) async fn run(config: &Config, arguments: &RequeueArguments, as_json: bool) -> Result<(), Failure> {
    if arguments.payload.is_some() && !arguments.selection.names_one() {
        return Err(Failure::new(Exit::Usage, "--payload is for one dead letter"));
    }
    let replacement = arguments.payload.as_deref().map(read).transpose()?;
    let ledger = Ledger::new(connect::database(config, 2)?, config.budget.clone());
    let mut walk =
        arguments.selection.walk(ledger.connections(), &[LetterState::Open, LetterState::Unfinished]).await?;
    let stream = RecordStream::new(connect::nats(config).await?, &config.nats.stream);
    if !arguments.selection.dry_run {
        decision::record_what_is_unrecorded(&ledger).await?;
    }
    let requeuing = Requeuing { ledger: &ledger, stream, arguments, replacement };
    let mut report = RequeueReport { as_json, ..RequeueReport::default() };
    let done = async {
        while let Some(letter) = walk.next().await? {
            let done = Box::pin(requeuing.requeue(&letter)).await?;
            report.add(&letter, &done);
        }
        Ok::<_, Failure>(())
    };
    let done = done.await;
    report.finish();
    done?;
    match report.refused {
        // The filters also find what may not be requeued yet, and that is no failure.
        refused if refused > 0 && arguments.selection.names_letters() => {
            Err(Failure::new(Exit::Failed, format!("{refused} were not requeued")))
        }
        _ => Ok(()),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let unusable = |why: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{}: {why}", file.display()));
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| unusable(&error))?;
    opened.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| unusable(&error))?;
    if bytes.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(unusable(&"it is larger than any message"));
    }
    Ok(bytes)
}

/// What became of one letter.
#[derive(Debug)]
enum Done {
    /// It is in the stream.
    Requeued { at: Position, was_unfinished: bool },
    /// It would be.
    Would { was_unfinished: bool },
    /// It may not be.
    Refused(String),
}

struct Requeuing<'a> {
    ledger: &'a Ledger,
    stream: RecordStream,
    arguments: &'a RequeueArguments,
    replacement: Option<Vec<u8>>,
}

impl Requeuing<'_> {
    async fn requeue(&self, letter: &LetterSummary) -> Result<Done, Failure> {
        for _ in 0..RIVALS_MAX {
            let unfinished = resolution::unfinished(self.ledger.connections(), letter.leaf_index).await?;
            let was_unfinished = unfinished.is_some();
            let decision = match unfinished {
                Some(_) if self.replacement.is_some() => {
                    let why = "an earlier requeue of it is not finished: finish that first, without --payload";
                    return Ok(Done::Refused(why.to_owned()));
                }
                Some(_) if self.arguments.selection.dry_run => return Ok(Done::Would { was_unfinished }),
                Some(decision) => decision,
                None => match self.decide(letter).await? {
                    Decided::Yes(decision) => decision,
                    Decided::No(done) => return Ok(done),
                    Decided::Outrun => continue,
                },
            };
            decision::record(self.ledger, &decision).await?;
            let at = self.carry_out(&decision).await?;
            return Ok(Done::Requeued { at, was_unfinished });
        }
        Err(decision::conflicting_decision(&letter.reference))
    }

    async fn decide(&self, letter: &LetterSummary) -> Result<Decided, Failure> {
        let connections = self.ledger.connections();
        let replacement = self.replacement.as_deref();
        let standing = dead_letters::standing(connections, letter).await?;
        if standing.state == LetterState::Unfinished {
            // Since we looked.
            return Ok(Decided::Outrun);
        }
        let stand = self.stream.stand().await?;
        let options = RequeueOptions { again: self.arguments.again, replaces: replacement.is_some() };
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
            return Ok(Decided::No(Done::Refused(why)));
        }
        if self.arguments.selection.dry_run {
            return Ok(Decided::No(Done::Would { was_unfinished: false }));
        }
        let proposal = Proposal {
            leaf_index: letter.leaf_index,
            rounds: standing.rounds,
            by: &self.arguments.by,
            why: self.arguments.why.as_deref(),
            what: Proposed::Requeue { from: &stand.last, replacement },
        };
        Ok(resolution::decide(connections, &proposal).await?.map_or(Decided::Outrun, Decided::Yes))
    }

    /// Brings the message into the stream, unless it is there, and notes where.
    async fn carry_out(&self, decision: &Decision) -> Result<Position, Failure> {
        let connections = self.ledger.connections();
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
                match resolution::arrived(connections, &requeue.message_id, &letter.subject, &hash).await? {
                    Some(at) => at,
                    None => self.stream.publish(&returned, absent).await.map_err(unfinished)?,
                }
            }
        };
        resolution::settle(connections, decision, &at).await?;
        Ok(at)
    }
}

enum Decided {
    Yes(Decision),
    No(Done),
    /// Somebody else decided first.
    Outrun,
}

/// A token that is one, to every server: no wildcard, and nothing that was made storable.
fn is_plain(actor: &str) -> bool {
    !actor.contains(|character: char| {
        character.is_whitespace() || character.is_control() || "*>\u{fffd}".contains(character)
    })
}

/// What was done, or would be.
#[derive(Debug, Default)]
struct RequeueReport {
    as_json: bool,
    values: Vec<Value>,
    all: usize,
    refused: usize,
}

impl RequeueReport {
    fn add(&mut self, letter: &LetterSummary, done: &Done) {
        let reference = &letter.reference;
        self.all += 1;
        self.refused += usize::from(matches!(done, Done::Refused(_)));
        if self.as_json {
            self.values.push(match done {
                Done::Requeued { at, was_unfinished } => json!({
                    "reference": reference, "result": "requeued", "sequence": at.sequence, "was_unfinished": was_unfinished,
                }),
                Done::Would { was_unfinished } => json!({
                    "reference": reference, "result": "would_be_requeued", "was_unfinished": was_unfinished,
                }),
                Done::Refused(why) => json!({ "reference": reference, "result": "refused", "why": why }),
            });
            return;
        }
        let finishes = |was_unfinished: &bool| if *was_unfinished { ", as was decided before" } else { "" };
        match done {
            Done::Requeued { at, was_unfinished } => output::line(format_args!(
                "{reference}  requeued: sequence {}{}",
                at.sequence,
                finishes(was_unfinished)
            )),
            Done::Would { was_unfinished } => {
                output::line(format_args!("{reference}  would be requeued{}", finishes(was_unfinished)));
            }
            Done::Refused(why) => output::line(format_args!("{reference}  refused: {why}")),
        }
    }

    fn finish(&self) {
        if self.as_json {
            output::json(&Value::Array(self.values.clone()));
        } else {
            output::line(format_args!("{} dead letters, {} refused", self.all, self.refused));
        }
    }
}
