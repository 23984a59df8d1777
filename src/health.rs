//! The health of the daemon: the dependencies that it waits for, and the liveness of its loops. The loops update it;
//! readiness, status text, metrics and the watchdog read it.

pub mod stalls;

use parking_lot::{Mutex, MutexGuard};
use stalls::{Sight, StallLimits, Stalls};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// An outage is told once when it begins and once when it ends; in between, a reminder at this interval.
const REMINDER_INTERVAL: Duration = Duration::from_mins(1);

/// Several loops may see one outage differently; a new reason is told no more often than this.
const NEWS_INTERVAL: Duration = Duration::from_secs(5);

/// Something the daemon cannot do without. Several loops use it; it is up when none of them waits for it.
#[derive(Debug)]
pub struct Dependency {
    name: &'static str,
    state: Mutex<DependencyState>,
}

#[derive(Debug)]
struct DependencyState {
    retired: bool,
    /// Set by the first success.
    met: bool,
    /// Who waits, and why.
    waiting: BTreeMap<String, String>,
    down_since: Option<Instant>,
    told: Option<(Instant, String)>,
}

impl Dependency {
    /// A dependency that was not met yet.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            state: Mutex::new(DependencyState {
                retired: false,
                met: false,
                waiting: BTreeMap::new(),
                down_since: None,
                told: None,
            }),
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// `who` has what it needs. Tells once that an outage has ended.
    pub fn up(&self, who: &str) {
        let mut state = self.lock();
        state.met = true;
        state.waiting.remove(who);
        if !state.waiting.is_empty() {
            return;
        }
        let told = state.told.take();
        if let (Some(since), Some(_)) = (state.down_since.take(), told) {
            tracing::info!(dependency = self.name, after_s = since.elapsed().as_secs(), "{} is back", self.name);
        }
    }

    /// `who` does not wait any more, whether the dependency is there or not.
    pub fn forget(&self, who: &str) {
        self.lock().waiting.remove(who);
    }

    /// `who` waits. Tells once that an outage has begun, again when the reason changes, and a reminder now and then.
    pub fn down(&self, who: &str, why: &str) {
        let mut state = self.lock();
        let now = Instant::now();
        state.waiting.insert(who.to_owned(), why.to_owned());
        let since = *state.down_since.get_or_insert(now);
        let told_already = state
            .told
            .as_ref()
            .is_some_and(|(at, reason)| at.elapsed() < if reason == why { REMINDER_INTERVAL } else { NEWS_INTERVAL });
        if !told_already && !state.retired {
            state.told = Some((now, why.to_owned()));
            let waiting = state.waiting.len();
            drop(state);
            let for_s = since.elapsed().as_secs();
            tracing::warn!(dependency = self.name, for_s, waiting, "waiting for {}: {why}", self.name);
        }
    }

    /// Why it is not ready; `None` when it is.
    pub fn missing(&self) -> Option<String> {
        let state = self.lock();
        match state.waiting.iter().next() {
            Some((_, why)) => Some(why.clone()),
            None if state.met => None,
            None => Some("not connected yet".to_owned()),
        }
    }

    /// Whether nothing waits for it.
    pub fn is_up(&self) -> bool {
        self.missing().is_none()
    }

    /// From now on nothing is told: the daemon itself is going away.
    pub fn retire(&self) {
        self.lock().retired = true;
    }

    fn lock(&self) -> MutexGuard<'_, DependencyState> {
        self.state.lock()
    }
}

/// One loop's sign of life.
#[derive(Debug)]
pub struct Pulse {
    name: String,
    started: Instant,
    /// Milliseconds from `started` to the last beat, plus one; 0 while the loop has nothing to do.
    last_beat_ms: AtomicU64,
}

impl Pulse {
    /// A loop that has nothing to do yet.
    fn new(name: String) -> Self {
        Self { name, started: Instant::now(), last_beat_ms: AtomicU64::new(0) }
    }

    /// The loop made a step.
    pub fn beat(&self) {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last_beat_ms.store(elapsed_ms + 1, Ordering::Relaxed);
    }

    /// The loop waits for work, which may be long in coming.
    pub fn rest(&self) {
        self.last_beat_ms.store(0, Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        match self.last_beat_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            beat => self.started.elapsed().saturating_sub(Duration::from_millis(beat - 1)),
        }
    }
}

#[derive(Debug)]
pub struct Health {
    pub postgres: Dependency,
    /// The connection, the stream and the consumers.
    pub nats: Dependency,
    /// The way of rejects to their subject. It holds up nothing else.
    pub dead_letters: Dependency,
    /// The way of budget alerts to their subject. It holds up nothing else.
    pub alerts: Dependency,
    /// The signing of checkpoints. It holds up nothing else.
    pub checkpoints: Dependency,
    /// The webhooks' own connection. It holds up nothing else.
    pub webhooks: Dependency,
    /// That every sequence which the lanes have passed is stored. It holds up nothing else.
    pub completeness: Dependency,
    stalls: Stalls,
    pulses: Mutex<Vec<Arc<Pulse>>>,
    silence_max: Duration,
}

impl Health {
    /// Every wait and every call between two beats of a loop is bounded by less than `silence_max`; a loop that is silent
    /// for longer hangs.
    pub fn new(silence_max: Duration, patience: StallLimits) -> Self {
        Self {
            postgres: Dependency::new("PostgreSQL"),
            nats: Dependency::new("NATS"),
            dead_letters: Dependency::new("the dead-letter stream"),
            alerts: Dependency::new("the stream of budget alerts"),
            checkpoints: Dependency::new("the signing of checkpoints"),
            webhooks: Dependency::new("the connection of the webhooks"),
            completeness: Dependency::new("the count of the stream's sequences"),
            stalls: Stalls::new(patience),
            pulses: Mutex::new(Vec::new()),
            silence_max,
        }
    }

    /// The sign of life of the loop of this name.
    pub fn pulse(&self, name: &str) -> Arc<Pulse> {
        let mut pulses = self.pulses.lock();
        if let Some(known) = pulses.iter().find(|pulse| pulse.name == name) {
            return known.clone();
        }
        let pulse = Arc::new(Pulse::new(name.to_owned()));
        pulses.push(pulse.clone());
        pulse
    }

    pub fn dependencies(&self) -> [&Dependency; 7] {
        let Self { postgres, nats, dead_letters, alerts, checkpoints, webhooks, completeness, .. } = self;
        [postgres, nats, dead_letters, alerts, checkpoints, webhooks, completeness]
    }

    /// Whether records can flow, and do.
    pub fn is_ready(&self) -> bool {
        self.can_flow() && self.stalls.told().is_empty()
    }

    fn can_flow(&self) -> bool {
        self.postgres.is_up() && self.nats.is_up()
    }

    /// Takes in how a lane looks now.
    pub fn observe(&self, lane: &'static str, sight: Sight) {
        self.stalls.observe(lane, sight, self.can_flow());
    }

    /// The lanes that stand still though nothing is known to be down.
    pub fn stalls(&self) -> &Stalls {
        &self.stalls
    }

    /// Why a restart would help, or is worth a try; `None` when all is well, or when something else must be mended.
    pub fn needs_restart(&self) -> Option<String> {
        let hanging = self.hanging_loop().map(|name| format!("{name} hangs"));
        // A lane that nobody could look at since a server went away may not stand still any more.
        let stall = || self.stalls.worth_a_restart().filter(|_| self.can_flow());
        hanging.or_else(|| stall().map(|stall| stall.to_string()))
    }

    /// The first loop that hangs.
    fn hanging_loop(&self) -> Option<String> {
        let pulses = self.pulses.lock();
        pulses.iter().find(|pulse| pulse.silent_for() > self.silence_max).map(|pulse| pulse.name.clone())
    }

    /// One line for each dependency and for each lane that stands still, as `/readyz` shows them.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for dependency in self.dependencies() {
            let _ = match dependency.missing() {
                None => writeln!(text, "[+] {}: ok", dependency.name()),
                Some(why) => writeln!(text, "[-] {}: {why}", dependency.name()),
            };
        }
        for stall in self.stalls.told() {
            let _ = writeln!(text, "[-] {stall}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_is_up_when_nobody_waits_for_it() {
        let database = Dependency::new("PostgreSQL");
        assert!(!database.is_up());
        database.up("EXEC");
        assert!(database.is_up());
        database.down("EXEC", "connection refused");
        database.down("VOTE", "connection refused");
        database.up("EXEC");
        assert_eq!(database.missing().as_deref(), Some("connection refused"));
        database.up("VOTE");
        assert!(database.is_up());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_hangs_when_it_works_without_a_step_and_not_when_it_rests() {
        let silence_max = Duration::from_secs(45);
        let patience = StallLimits { tell_after: Duration::from_mins(2), restart_after: Duration::from_mins(5) };
        let health = Health::new(silence_max, patience);
        let (busy, idle) = (health.pulse("a"), health.pulse("b"));
        busy.beat();
        idle.rest();
        tokio::time::advance(silence_max + Duration::from_secs(1)).await;
        assert_eq!(health.needs_restart().as_deref(), Some("a hangs"));
        busy.rest();
        assert_eq!(health.needs_restart(), None);
    }
}
