//! Delivers to one target: in order, one notification at a time, until it is accepted or given up.

use crate::clock::unix_ns;
use crate::config::NotifyTarget;
use crate::metrics::TargetMetrics;
use crate::notify::sender::{Attempt, Sender, Verdict};
use crate::notify::sources::{self, Notification, Source};
use crate::notify::store::{Fate, NotifyStore};
use crate::postgres::remedy::DatabaseError;
use crate::query::notifications::waiting;
use crate::retry::Backoff;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A new event is seen within this time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What waits is counted, and a position moves over what the target need not hear of, no more often than this.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// What one target is served with.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    pub target: &'a NotifyTarget,
    pub store: &'a NotifyStore,
    pub sender: &'a Sender,
    pub metrics: &'a TargetMetrics,
    /// Cancelled when the daemon is to stop, or the settings change.
    pub stop: &'a CancellationToken,
}

/// What the loop remembers between two steps.
struct State {
    backoff: Backoff,
    /// No attempt before this moment.
    not_before: Instant,
    /// The next of each source, while this instance has the lease.
    queues: BTreeMap<Source, Queue>,
    counted_at: Option<Instant>,
    /// Why nothing arrives; told once.
    told: Option<String>,
}

/// A source, as far as it is known.
#[derive(Debug)]
struct Queue {
    /// As it is stored.
    position: i64,
    /// Nothing is there up to this number.
    passed: i64,
    head: Option<Notification>,
}

impl Delivery<'_> {
    /// Runs until told to stop. An attempt that has begun is finished.
    pub(crate) async fn run(&self) {
        let mut state = State {
            backoff: Backoff::for_receiver(),
            not_before: Instant::now(),
            queues: BTreeMap::new(),
            counted_at: None,
            told: None,
        };
        while !self.stop.is_cancelled() {
            let wait = match self.step(&mut state).await {
                Ok(wait) => wait,
                Err(error) => {
                    self.tell_of_the_database(&mut state, &error);
                    LOOK_INTERVAL
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.stop.cancelled() => {}
            }
        }
        if let Err(error) = self.store.release(&self.target.name).await {
            tracing::debug!(name = self.target.name, "the lease of the notifications ends by itself: {error}");
        }
        self.show_nothing();
    }

    /// One attempt at most. Gives the time to the next step.
    async fn step(&self, state: &mut State) -> Result<Duration, DatabaseError> {
        let Some(leased) = self.store.lease(self.target).await? else {
            state.queues.clear();
            self.show_nothing();
            return Ok(LOOK_INTERVAL);
        };
        self.metrics.disabled.set(i64::from(leased.is_disabled));
        if leased.retry {
            if let Some(wait) = self.retry_failed(state).await? {
                return Ok(wait);
            }
            self.store.end_retry(&self.target.name).await?;
            state.backoff.reset();
            state.not_before = Instant::now();
        }
        self.fill(state).await?;
        self.count(state).await?;
        let wait = state.not_before.saturating_duration_since(Instant::now());
        if leased.is_disabled || !wait.is_zero() {
            return Ok(wait.clamp(Duration::from_millis(1), LOOK_INTERVAL));
        }
        let Some(next) = oldest(&state.queues) else { return Ok(LOOK_INTERVAL) };
        self.attempt(state, &next).await
    }

    /// Looks into each source whose next event is not known.
    async fn fill(&self, state: &mut State) -> Result<(), DatabaseError> {
        let target = self.target;
        if state.queues.is_empty() {
            let positions = self.store.positions(&target.name).await?;
            let queue = |position| Queue { position, passed: position, head: None };
            state.queues = positions.into_iter().map(|(source, position)| (source, queue(position))).collect();
        }
        let events: Vec<&str> = target.events.iter().map(|event| event.name()).collect();
        for (source, queue) in state.queues.iter_mut().filter(|(_, queue)| queue.head.is_none()) {
            let found = sources::next(&self.store.connections, *source, queue.passed, &events).await?;
            queue.passed = found.passed;
            queue.head = found.next;
        }
        Ok(())
    }

    /// Shows what waits, and moves positions over what the target need not hear of.
    async fn count(&self, state: &mut State) -> Result<(), DatabaseError> {
        let oldest = oldest(&state.queues);
        self.metrics.oldest_waiting.set(oldest.as_ref().map_or(Duration::ZERO, age).as_secs_f64());
        if state.counted_at.is_some_and(|at| at.elapsed() < COUNT_INTERVAL) {
            return Ok(());
        }
        state.counted_at = Some(Instant::now());
        for (source, queue) in state.queues.iter_mut().filter(|(_, queue)| queue.passed > queue.position) {
            self.store.pass(&self.target.name, *source, queue.passed).await?;
            queue.position = queue.passed;
        }
        let waiting = if oldest.is_some() { waiting(&self.store.connections, &self.target.name).await? } else { 0 };
        self.metrics.waiting.set(waiting);
        Ok(())
    }

    async fn attempt(&self, state: &mut State, next: &Notification) -> Result<Duration, DatabaseError> {
        let attempt = self.sender.send(self.target, next).await;
        let is_old = age(next) > self.target.give_up_after;
        let fate = match attempt.verdict {
            Verdict::Accepted => Fate::Delivered,
            Verdict::Refused { .. } if is_old => Fate::Failed,
            Verdict::Refused { .. } | Verdict::Gone => Fate::Waiting,
        };
        self.tell(&mut state.told, next, &attempt, fate);
        if !self.settle(next, &attempt, fate).await? {
            state.queues.clear();
            return Ok(LOOK_INTERVAL);
        }
        if let (Fate::Delivered | Fate::Failed, Some(queue)) = (fate, state.queues.get_mut(&next.source)) {
            *queue = Queue { position: next.number, passed: next.number, head: None };
        }
        Ok(match (fate, attempt.verdict) {
            (Fate::Delivered, _) => {
                state.backoff.reset();
                Duration::ZERO
            }
            (Fate::Waiting, Verdict::Refused { retry_after }) => {
                let wait = state.backoff.next_wait().max(retry_after.unwrap_or_default());
                state.not_before = Instant::now() + wait;
                LOOK_INTERVAL.min(wait)
            }
            // The next one may fare better. Where it does not, this is the pace.
            (Fate::Failed, _) => GIVING_UP_INTERVAL,
            (Fate::Waiting, _) => LOOK_INTERVAL,
        })
    }

    /// Tries what was given up once more. `None`: nothing of it is left.
    async fn retry_failed(&self, state: &mut State) -> Result<Option<Duration>, DatabaseError> {
        let name = &self.target.name;
        let Some((source, number)) = self.store.next_retry(name).await? else { return Ok(None) };
        let events: Vec<&str> = self.target.events.iter().map(|event| event.name()).collect();
        let found = sources::next(&self.store.connections, source, number - 1, &events).await?;
        let Some(again) = found.next.filter(|it| it.number == number) else {
            tracing::warn!(
                name,
                "a notification of {} {number} cannot be retried: it is not there any more",
                source.name()
            );
            return Ok(None);
        };
        let attempt = self.sender.send(self.target, &again).await;
        let fate = if attempt.verdict == Verdict::Accepted { Fate::Delivered } else { Fate::Failed };
        self.tell(&mut state.told, &again, &attempt, fate);
        let is_ours = self.settle(&again, &attempt, fate).await?;
        Ok(is_ours.then_some(Duration::ZERO))
    }

    async fn settle(&self, of: &Notification, attempt: &Attempt, fate: Fate) -> Result<bool, DatabaseError> {
        let metrics = self.metrics;
        match fate {
            Fate::Delivered => metrics.delivered.inc(),
            Fate::Waiting => metrics.failed_attempts.inc(),
            Fate::Failed => {
                metrics.failed_attempts.inc();
                metrics.given_up.inc()
            }
        };
        self.store.settle(&self.target.name, of, attempt, fate).await
    }

    /// What time heals, the loops that store records tell of. Anything else is told here, once.
    fn tell_of_the_database(&self, state: &mut State, error: &DatabaseError) {
        let (name, why) = (&self.target.name, error.to_string());
        if !error.is_absence() && state.told.as_ref().is_none_or(|told| *told != why) {
            tracing::error!(name, "notifications to {name} wait for the database: {why}");
            state.told = Some(why);
        }
        state.queues.clear();
    }

    /// Tells once that notifications do not arrive, and once that they do again.
    fn tell(&self, told: &mut Option<String>, of: &Notification, attempt: &Attempt, fate: Fate) {
        let (name, answer) = (&self.target.name, &attempt.answer);
        if attempt.verdict == Verdict::Gone {
            tracing::warn!(
                name,
                "{name} has answered 410 Gone and is told nothing any more: `ledgerd notify retry {name}` ends that"
            );
        }
        match fate {
            Fate::Delivered => {
                if told.take().is_some() {
                    tracing::info!(name, "notifications reach {name} again");
                }
            }
            Fate::Failed => {
                tracing::warn!(name, "{} was given up: {name} does not accept it: {answer}", of.webhook_id());
            }
            Fate::Waiting if told.as_ref().is_none_or(|before| before != answer) => {
                tracing::warn!(name, "notifications wait, for {name} does not accept them: {answer}");
                *told = Some(answer.clone());
            }
            Fate::Waiting => {}
        }
    }

    /// Another instance delivers, and shows it.
    fn show_nothing(&self) {
        self.metrics.waiting.set(0);
        self.metrics.oldest_waiting.set(0.0);
        self.metrics.disabled.set(0);
    }
}

const GIVING_UP_INTERVAL: Duration = Duration::from_millis(100);

/// What is delivered next: of all sources, what happened first.
fn oldest(queues: &BTreeMap<Source, Queue>) -> Option<Notification> {
    let heads = queues.values().filter_map(|queue| queue.head.as_ref());
    heads.min_by_key(|head| (head.occurred_us, head.source, head.number)).cloned()
}

fn age(of: &Notification) -> Duration {
    Duration::from_micros(u64::try_from(unix_ns() / 1000 - of.occurred_us).unwrap_or(0))
}
