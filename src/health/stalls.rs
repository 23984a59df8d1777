//! Detects stalled lanes: messages wait, none is settled, and no dependency is known to be down. No other check reports
//! this fault. It is logged first; if it lasts, a restart is tried.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// How long a lane may stand still.
#[derive(Clone, Copy, Debug)]
pub struct StallLimits {
    /// Before it is told.
    pub tell_after: Duration,
    /// Before a restart is tried.
    pub restart_after: Duration,
}

/// A lane as it looks at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Changes whenever anything of the lane is settled.
    pub progress: LaneProgress,
    /// What waits; `None` when nothing does.
    pub waiting: Option<Waiting>,
}

/// Signs that something was settled, by this instance or by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneProgress {
    /// Everything up to this sequence is stored.
    pub position: i64,
    /// What this instance has stored, or found stored.
    pub stored: u64,
}

/// What waits, and whether a restart might help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub what: String,
    /// Somebody stopped the lane on purpose.
    pub on_purpose: bool,
}

/// Looks come every few seconds. After a longer gap (the process was frozen, the machine asleep) only this much of it counts, for
/// nobody looked.
const GAP_MAX: Duration = Duration::from_secs(15);

/// The lanes, as they were last seen.
#[derive(Debug)]
pub struct Stalls {
    patience: StallLimits,
    lanes: Mutex<BTreeMap<&'static str, LaneStall>>,
}

#[derive(Debug)]
struct LaneStall {
    seen: Instant,
    progress: LaneProgress,
    stood_still: Duration,
    waiting: Option<Waiting>,
    told: bool,
}

/// A lane that stands still, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    lane: &'static str,
    what: String,
}

impl Stall {
    pub fn lane(&self) -> &'static str {
        self.lane
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane {} stands still though nothing it needs is known to be down: {}", self.lane, self.what)
    }
}

impl Stalls {
    /// No lane was seen yet.
    pub fn new(patience: StallLimits) -> Self {
        Self { patience, lanes: Mutex::default() }
    }

    /// Takes in how a lane looks now. `all_is_up`: no dependency is known to be down. Tells once that a lane stands still,
    /// and once that it does no more.
    pub fn observe(&self, lane: &'static str, sight: Sight, all_is_up: bool) {
        let now = Instant::now();
        let mut lanes = self.lanes.lock();
        let known = lanes.entry(lane).or_insert_with(|| LaneStall {
            seen: now,
            progress: sight.progress,
            stood_still: Duration::ZERO,
            waiting: None,
            told: false,
        });
        let gap = now.duration_since(std::mem::replace(&mut known.seen, now)).min(GAP_MAX);
        let moved = std::mem::replace(&mut known.progress, sight.progress) != sight.progress;
        // What has begun to wait since the last look has waited for less than the gap.
        let waited = known.waiting.is_some() && sight.waiting.is_some();
        known.waiting = sight.waiting;
        if waited && !moved && all_is_up {
            known.stood_still += gap;
            if known.stood_still >= self.patience.tell_after && !known.told {
                known.told = true;
                let for_s = known.stood_still.as_secs();
                if let Some(stall) = known.stall(lane) {
                    tracing::error!(lane, for_s, "{stall}; nothing of it was settled for {for_s} s");
                }
            }
            return;
        }
        let stood_still = std::mem::take(&mut known.stood_still);
        if std::mem::take(&mut known.told) {
            let how = match (moved, all_is_up) {
                (true, _) => "moves again",
                (false, false) => "waits for a dependency that is down",
                (false, true) => "has nothing to wait for any more",
            };
            tracing::info!(lane, after_s = stood_still.as_secs(), "lane {lane} {how}");
        }
    }

    /// The lanes that were told to stand still.
    pub fn told(&self) -> Vec<Stall> {
        let lanes = self.lanes.lock();
        lanes.iter().filter(|(_, known)| known.told).filter_map(|(lane, known)| known.stall(lane)).collect()
    }

    /// A lane that has stood still for so long that a restart is worth a try.
    pub fn worth_a_restart(&self) -> Option<Stall> {
        let lanes = self.lanes.lock();
        lanes.iter().find_map(|(lane, known)| {
            let on_purpose = known.waiting.as_ref().is_some_and(|waiting| waiting.on_purpose);
            (known.told && known.stood_still >= self.patience.restart_after && !on_purpose)
                .then(|| known.stall(lane))
                .flatten()
        })
    }

    /// How long each lane has stood still.
    pub fn durations(&self) -> Vec<(&'static str, Duration)> {
        self.lanes.lock().iter().map(|(lane, known)| (*lane, known.stood_still)).collect()
    }
}

impl LaneStall {
    fn stall(&self, lane: &'static str) -> Option<Stall> {
        Some(Stall { lane, what: self.waiting.as_ref()?.what.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: &str = "EXEC";
    const LOOKS_EVERY: Duration = Duration::from_secs(5);

    fn stalls() -> Stalls {
        Stalls::new(StallLimits { tell_after: Duration::from_mins(2), restart_after: Duration::from_mins(5) })
    }

    fn sight(position: i64, waiting: Option<bool>) -> Sight {
        Sight {
            progress: LaneProgress { position, stored: 0 },
            waiting: waiting.map(|on_purpose| Waiting { what: "three messages".to_owned(), on_purpose }),
        }
    }

    async fn look_for(stalls: &Stalls, time: Duration, sight: &Sight, all_is_up: bool) {
        for _ in 0..time.as_secs() / LOOKS_EVERY.as_secs() {
            tokio::time::advance(LOOKS_EVERY).await;
            stalls.observe(LANE, sight.clone(), all_is_up);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_stands_still_is_told_then_restarted_and_forgotten_when_it_moves() {
        let stalls = stalls();
        let waits = sight(7, Some(false));
        look_for(&stalls, Duration::from_mins(2), &waits, true).await;
        assert!(stalls.told().is_empty());
        look_for(&stalls, LOOKS_EVERY, &waits, true).await;
        assert!(stalls.told()[0].to_string().contains("three messages"));
        assert_eq!(stalls.worth_a_restart(), None);
        look_for(&stalls, Duration::from_mins(3), &waits, true).await;
        assert!(stalls.worth_a_restart().is_some());
        look_for(&stalls, LOOKS_EVERY, &sight(8, Some(false)), true).await;
        assert_eq!((stalls.told(), stalls.worth_a_restart()), (vec![], None));
        assert_eq!(stalls.durations(), [(LANE, Duration::ZERO)]);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_to_do_an_outage_and_any_progress_are_no_stall() {
        let stalls = stalls();
        look_for(&stalls, Duration::from_hours(1), &sight(7, None), true).await;
        look_for(&stalls, Duration::from_hours(1), &sight(7, Some(false)), false).await;
        for position in 8..200 {
            look_for(&stalls, Duration::from_mins(1), &sight(position, Some(false)), true).await;
        }
        assert!(stalls.told().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_was_stopped_on_purpose_is_told_and_not_restarted() {
        let stalls = stalls();
        look_for(&stalls, Duration::from_hours(1), &sight(7, Some(true)), true).await;
        assert_eq!((stalls.told().len(), stalls.worth_a_restart()), (1, None));
    }

    /// Frozen for an hour and woken, it has an hour's messages before it and is not at fault.
    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_looked_does_not_count() {
        let stalls = stalls();
        look_for(&stalls, Duration::from_mins(1), &sight(7, Some(false)), true).await;
        tokio::time::advance(Duration::from_hours(1)).await;
        stalls.observe(LANE, sight(7, Some(false)), true);
        assert!(stalls.told().is_empty());
    }
}
