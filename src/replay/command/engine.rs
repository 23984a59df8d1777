//! The replay engine: runs the daemon's own pipeline over a source that reads the stream again.

use crate::command::progress::{ProgressLine, bar, pace};
use crate::command::{Exit, Failure, connect, output, rules};
use crate::config::Config;
use crate::health::Health;
use crate::ingest::coverage;
use crate::ingest::lifecycle::{ReceiptNotifier, Store};
use crate::ingest::pipeline::{self, LaneContext};
use crate::metrics::{LaneMetrics, Metrics};
use crate::nats::api::Api;
use crate::nats::stream_state::StreamState;
use crate::postgres::connections::Connections;
use crate::record::lane::Lane;
use crate::record::receipt::Asked;
use crate::record::reject::Reason;
use crate::record::sequences::{Span, Spans};
use crate::replay::command::references::Referred;
use crate::replay::command::source::{BatchLimits, Course, Feed, NAME, Obstacle, ReplaySource};
use crate::replay::reader::{MessageReader, Wanted};
use crate::systemd::{self, Signal};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

/// What is to be read again.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) config: &'a Config,
    pub(crate) api: &'a Api,
    pub(crate) stream_state: &'a StreamState,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) spans: Spans,
    /// Usage is rejected for want of a rate whatever the stream has lost.
    pub(crate) rates_are_complete: bool,
}

/// Tells nobody: who asked for a receipt had it when the message was acknowledged, or will have it from the daemon.
pub(crate) struct Silence;

impl ReceiptNotifier for Silence {
    async fn notify(&self, _asked: &[Asked]) {}
}

#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) stored: u64,
    /// Messages that were stored before.
    pub(crate) known: u64,
    /// Records that were stored before under another sequence.
    pub(crate) duplicates: u64,
    pub(crate) rejects: Vec<(Reason, u64)>,
    /// Where the stream had nothing when it was read.
    pub(crate) absent: Spans,
    /// Where to go on, and why it did not.
    pub(crate) unfinished: Option<Unfinished>,
}

/// A replay that did not come to its end.
#[derive(Debug)]
pub(crate) struct Unfinished {
    /// Where it could go on; nowhere, where the stream is another one now.
    pub(crate) next: Option<i64>,
    pub(crate) why: String,
}

impl Job<'_> {
    /// Reads, judges and stores, and shows how far it is. `custody` is asked what is stored.
    pub(crate) async fn run<S: Store>(
        self,
        store: &S,
        custody: &Connections,
        stop: &CancellationToken,
    ) -> Result<Replayed, Failure> {
        self.run_with(store, &Silence, custody, stop, true).await
    }

    /// The same, with somebody to tell, and with or without a show.
    pub(crate) async fn run_with<S: Store, C: ReceiptNotifier>(
        self,
        store: &S,
        notifier: &C,
        custody: &Connections,
        stop: &CancellationToken,
        is_shown: bool,
    ) -> Result<Replayed, Failure> {
        let Some(first) = self.spans.first() else { return Ok(Replayed::of(&metrics(), Spans::default(), None)) };
        let rules = rules::load(self.config).map_err(|why| Failure::new(Exit::Configuration, why))?;
        let health = Arc::new(connect::health(self.config));
        health.postgres.up(NAME);
        health.nats.up(NAME);
        let course = Arc::new(Course::new(first.first() - 1));
        // A lane that waits for what will never come ends the replay, and not the command.
        let stop = stop.child_token();
        let incarnation = self.stream_state.incarnation.clone();
        let feed = Feed {
            reader: MessageReader::new(
                self.api.clone(),
                incarnation.clone(),
                Wanted::Lanes(self.lanes.clone()),
                &self.spans,
            ),
            api: self.api.clone(),
            incarnation,
            limits: BatchLimits {
                messages_max: self.config.batch_messages_max,
                bytes_max: self.config.batch_bytes_max,
            },
            health: health.clone(),
            course: course.clone(),
            stop: stop.clone(),
        };
        let referred = (!self.rates_are_complete).then(|| Referred::new(self.api, custody, &self.config.nats.stream));
        let (_rules, rules) = watch::channel(Arc::new(rules));
        let (metrics, pulse) = (metrics(), health.pulse(NAME));
        let context = LaneContext {
            name: NAME,
            rules,
            store_health: &health.postgres,
            pulse: &pulse,
            metrics: &metrics,
            stop: &stop,
        };
        tokio::select! {
            () = Box::pin(pipeline::run(ReplaySource::start(feed, referred), store, notifier, context)) => {}
            () = tell(&course, &self.spans, &health), if is_shown => {}
        }
        let unfinished = match course.obstacle() {
            None if course.is_drained() => None,
            None => Some(Unfinished { next: Some(course.settled() + 1), why: "told to stop".to_owned() }),
            Some(Obstacle { why, is_for_ever }) => {
                Some(Unfinished { next: (!is_for_ever).then(|| course.settled() + 1), why })
            }
        };
        Ok(Replayed::of(&metrics, course.absent(), unfinished))
    }

    /// Where the registries are empty, every use of a tool would be rejected for that alone.
    pub(crate) async fn refuse_empty_registries(&self, custody: &Connections) -> Result<(), Failure> {
        if !self.lanes.contains(&Lane::Usage) || !coverage::is_a_registry_empty(custody).await? {
            return Ok(());
        }
        for span in self.spans.iter() {
            let next = self.api.next_of_lane(&self.stream_state.incarnation, Lane::Usage, span.first()).await?;
            if next.is_some_and(|next| next <= span.last()) {
                return Err(Failure::new(
                    Exit::Configuration,
                    "agent_registry or tool_registry is empty, and every use of a tool would be rejected: fill them first, or \
                     name the other lanes with --lane",
                ));
            }
        }
        Ok(())
    }
}

fn metrics() -> LaneMetrics {
    // It counts for one command; the label is never shown.
    Metrics::new().lane(Lane::Sys)
}

impl Replayed {
    fn of(metrics: &LaneMetrics, absent: Spans, unfinished: Option<Unfinished>) -> Self {
        Self {
            stored: metrics.committed.get(),
            known: metrics.redelivered.get(),
            duplicates: metrics.duplicates.get(),
            rejects: metrics.rejects().collect(),
            absent,
            unfinished,
        }
    }

    pub(crate) fn rejected(&self) -> u64 {
        self.rejects.iter().map(|(_, count)| count).sum()
    }
}

/// How often an eye or a log wants to hear of it.
const TELL_INTERVAL: Duration = Duration::from_millis(100);

/// Shows how far it is. An outage is told once when it begins and once when it ends.
async fn tell(course: &Course, spans: &Spans, health: &Health) {
    let (began, mut progress) = (Instant::now(), ProgressLine::new());
    let mut ticks = interval(TELL_INTERVAL);
    let mut told = [false; 2];
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let total = count(spans.count());
    loop {
        ticks.tick().await;
        for (dependency, told) in [&health.postgres, &health.nats].into_iter().zip(&mut told) {
            let name = dependency.name();
            match dependency.missing() {
                Some(why) if !*told => {
                    progress.clear();
                    output::complain(&format!("waiting for {name}: {why}"));
                    *told = true;
                }
                None if *told => {
                    progress.clear();
                    output::complain(&format!("{name} is back"));
                    *told = false;
                }
                _ => {}
            }
        }
        let settled = course.settled();
        let done = Span::new(1, settled).map_or(0, |through| count(spans.within(through).count()));
        progress.tell(|| {
            let (bar, pace) = (bar(done, total), pace(done, total, began.elapsed()));
            format!("{bar} sequence {settled}, {done} of {total}, {pace}")
        });
    }
}

/// Does the work; told to stop, it settles what it holds, and told twice, it ends at once.
pub(crate) async fn until_told<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut signals = systemd::signals().map_err(|error| Failure::new(Exit::Failed, error))?;
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            signal = signals.recv() => match signal {
                Some(Signal::Stop) if stop.is_cancelled() => return Err(Failure::new(Exit::Failed, "told to stop twice")),
                Some(Signal::Stop) => stop.cancel(),
                Some(Signal::Reload) => {}
                None => return work.as_mut().await,
            },
        }
    }
}
