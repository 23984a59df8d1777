//! `ledgerd replay`: reads the stream again with the daemon's validation and commits, independently of the lanes'
//! consumers. Stored messages are recognised by their position in the stream. So a replay may be repeated, stopped, and
//! run beside a daemon.

pub(crate) mod engine;
mod references;
mod source;

use crate::command::{Exit, Failure, connect, moment, output};
use crate::config::Config;
use crate::ingest::coverage::DryRun;
use crate::ingest::store::Ledger;
use crate::nats::api::Api;
use crate::nats::stream_state::StreamState;
use crate::postgres::schema;
use crate::record::lane::Lane;
use crate::record::message::unix_ns;
use crate::record::sequences::{Span, Spans};
use engine::{Job, Replayed, Unfinished, until_told};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArguments {
    /// Begin at this sequence of the stream [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    from_sequence: Option<i64>,
    /// End with this sequence [default: the last one that the stream has now]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    to_sequence: Option<i64>,
    /// Begin with what the stream received from this moment on (ISO 8601; UTC where it names no offset)
    #[arg(long, value_name = "TIME", conflicts_with = "from_sequence")]
    from_time: Option<String>,
    /// End with what it received before this moment
    #[arg(long, value_name = "TIME", conflicts_with = "to_sequence")]
    to_time: Option<String>,
    /// Only this lane; may be given several times [default: the lanes of the configuration]
    #[arg(long, value_name = "LANE")]
    lane: Vec<Lane>,
    /// Reject usage whose rate this database lacks, although the stream has lost messages that may have brought it
    #[arg(long)]
    rates_are_complete: bool,
    /// Judge each message, look whether it is there, and store nothing; what only a commit finds out (a duplicate, a missing
    /// reference) is not said
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(config: &Config, arguments: &ReplayArguments, as_json: bool) -> Result<(), Failure> {
    let custody = connect::database(config, 1)?;
    if let Some(complaint) = schema::state(&custody).await?.complaint() {
        return Err(Failure::new(Exit::Configuration, complaint));
    }
    let api = connect::nats(config).await?;
    let stream_state = api.stream_state(&config.nats.stream).await?;
    let span = span(&api, &stream_state, arguments).await?;
    let job = Job {
        config,
        api: &api,
        stream_state: &stream_state,
        lanes: if arguments.lane.is_empty() { config.lanes.clone() } else { arguments.lane.clone() },
        spans: span.into_iter().flat_map(|span| stream_state.remaining(span).iter().collect::<Vec<_>>()).collect(),
        rates_are_complete: arguments.rates_are_complete,
    };
    let stop = CancellationToken::new();
    let writers = connect::database(config, 1)?;
    let replayed = if arguments.dry_run {
        until_told(&stop, job.run(&DryRun(writers), &custody, &stop)).await?
    } else {
        job.refuse_empty_registries(&custody).await?;
        let lanes = job.lanes.clone();
        let ledger = Ledger::new(writers, config.budget.clone()).for_a_replay();
        let replayed = until_told(&stop, job.run(&ledger, &custody, &stop)).await?;
        advance(config, &stream_state, &lanes, span, &replayed).await?;
        replayed
    };
    let report = ReplayReport { stream_state: &stream_state, span, replayed: &replayed, is_dry_run: arguments.dry_run };
    if as_json {
        output::json(&report.to_json());
    } else {
        report.lines().iter().for_each(output::line);
    }
    match replayed.unfinished {
        None => Ok(()),
        Some(Unfinished { next, why }) => {
            let next = match next {
                Some(next) => format!("to go on: --from-sequence {next}"),
                None => {
                    "what the old one still held is lost to a replay; `ledgerd replay` reads the new one".to_owned()
                }
            };
            Err(Failure::new(Exit::Failed, format!("{why}; {next}")))
        }
    }
}

/// A lane that nobody reads need not read again what was replayed as a whole. One that is read comes by it itself.
async fn advance(
    config: &Config,
    stream_state: &StreamState,
    lanes: &[Lane],
    span: Option<Span>,
    replayed: &Replayed,
) -> Result<(), Failure> {
    let through = match (&replayed.unfinished, span) {
        (None, Some(span)) => span.last(),
        (Some(Unfinished { next: Some(next), .. }), Some(_)) => next - 1,
        _ => return Ok(()),
    };
    let Some(read) = span.and_then(|span| Span::new(span.first(), through)) else { return Ok(()) };
    let lost_through = (stream_state.first - 1).min(read.last());
    connect::positions(config)?.advance_free(&stream_state.incarnation, lanes, read, lost_through).await?;
    Ok(())
}

/// What the operator asks for, up to the stream's end as it is now.
async fn span(api: &Api, stream_state: &StreamState, arguments: &ReplayArguments) -> Result<Option<Span>, Failure> {
    let ReplayArguments { from_time, to_time, .. } = arguments;
    let from_ns = from_time.as_deref().map(|text| stream_ns("from-time", text)).transpose()?;
    let to_ns = to_time.as_deref().map(|text| stream_ns("to-time", text)).transpose()?;
    if let (Some(from), Some(to)) = (from_time, to_time)
        && from_ns >= to_ns
    {
        return Err(Failure::new(Exit::Usage, format!("--from-time {from} does not come before --to-time {to}")));
    }
    let first = match from_ns {
        Some(ns) => api.first_since(stream_state, ns).await?,
        None => arguments.from_sequence.unwrap_or(1),
    };
    let last = match to_ns {
        Some(ns) => api.first_since(stream_state, ns).await? - 1,
        None => arguments.to_sequence.unwrap_or(stream_state.last),
    };
    if let (Some(from), Some(to)) = (arguments.from_sequence, arguments.to_sequence)
        && from > to
    {
        return Err(Failure::new(Exit::Usage, format!("--from-sequence {from} comes after --to-sequence {to}")));
    }
    Ok(Span::new(first, last.min(stream_state.last)))
}

/// A moment as the server counts it: to the nanosecond, where the text says so.
fn stream_ns(option: &str, text: &str) -> Result<i64, Failure> {
    let utc = moment::utc(option, text)?;
    let ns = unix_ns(text).or_else(|| unix_ns(&format!("{text}Z"))).or_else(|| unix_ns(&format!("{utc}Z")));
    ns.ok_or_else(|| Failure::new(Exit::Usage, format!("--{option} {text} is no moment of a stream")))
}

/// What became of the messages, and what the stream has no more.
#[derive(Debug)]
struct ReplayReport<'a> {
    stream_state: &'a StreamState,
    span: Option<Span>,
    replayed: &'a Replayed,
    is_dry_run: bool,
}

impl ReplayReport<'_> {
    fn expired(&self) -> Spans {
        self.span.map(|span| self.stream_state.expired(span)).unwrap_or_default()
    }

    fn deleted(&self) -> Spans {
        let mut deleted = self.span.map(|span| self.stream_state.deleted(span)).unwrap_or_default();
        deleted.add_all(&self.replayed.absent);
        deleted
    }

    fn lines(&self) -> Vec<String> {
        let incarnation = &self.stream_state.incarnation;
        let Some(span) = self.span else { return vec![format!("{incarnation}: nothing to replay")] };
        let Replayed { stored, known, duplicates, rejects, .. } = self.replayed;
        let reasons: Vec<String> = rejects.iter().map(|(reason, count)| format!("{} {count}", reason.code())).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!("   {}", reasons.join(", ")) };
        let would = if self.is_dry_run { ", a dry run: nothing was stored" } else { "" };
        let mut lines = vec![
            format!("{incarnation}, sequences {span}{would}"),
            format!("stored         {stored:>12}"),
            format!("already there  {known:>12}"),
            format!("duplicates     {duplicates:>12}"),
            format!("rejected       {:>12}{reasons}", self.replayed.rejected()),
        ];
        for (what, spans) in [("expired", self.expired()), ("deleted", self.deleted())] {
            if !spans.is_empty() {
                lines
                    .push(format!("the stream no longer holds {} sequences, which are {what}: {spans}", spans.count()));
            }
        }
        lines
    }

    fn to_json(&self) -> Value {
        let rejects: serde_json::Map<_, _> =
            self.replayed.rejects.iter().map(|(reason, count)| (reason.code().to_owned(), (*count).into())).collect();
        json!({
            "stream": &*self.stream_state.incarnation.stream,
            "stream_created_ns": self.stream_state.incarnation.created_ns,
            "first_sequence": self.span.map(Span::first), "last_sequence": self.span.map(Span::last),
            "dry_run": self.is_dry_run,
            "stored": self.replayed.stored, "already_there": self.replayed.known, "duplicates": self.replayed.duplicates,
            "rejected": self.replayed.rejected(), "rejects": rejects,
            "expired": ranges(&self.expired()), "deleted": ranges(&self.deleted()),
            "next_sequence": self.replayed.unfinished.as_ref().and_then(|unfinished| unfinished.next),
        })
    }
}

/// Ranges for machines.
pub(crate) fn ranges(spans: &Spans) -> Value {
    spans.iter().map(|span| json!({ "first": span.first(), "last": span.last() })).collect()
}
