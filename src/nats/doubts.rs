//! What may a lane's consumer have passed over? One that was changed while the daemon ran skips messages and counts them as done. So what
//! stands above the place to which it was last seen to be right is looked at again, in the stream itself, until all of it is stored.

use crate::domain::message::Incarnation;
use crate::domain::subject::Lane;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How far each lane's consumer can be believed. It outlives connections, and not the daemon.
#[derive(Debug, Default)]
pub struct Doubts(Mutex<HashMap<Lane, Belief>>);

#[derive(Debug, Default)]
struct Belief {
    /// The floor when the consumer was last as it must be.
    right: Option<Place>,
    /// What is above may have been passed over.
    doubted: Option<Place>,
}

/// A sequence of an incarnation.
type Place = (Incarnation, i64);

impl Doubts {
    /// The consumer is as it must be, and everything up to the floor is acknowledged.
    pub(super) fn is_right(&self, lane: Lane, incarnation: &Incarnation, floor: i64) {
        self.lock().entry(lane).or_default().right = Some((incarnation.clone(), floor));
    }

    /// The consumer is not as it must be.
    pub(super) fn is_wrong(&self, lane: Lane) {
        let mut beliefs = self.lock();
        let Belief { right, doubted } = beliefs.entry(lane).or_default();
        let is_of_now = |doubted: &Place| right.as_ref().is_none_or(|(incarnation, _)| *incarnation == doubted.0);
        *doubted = doubted.take().filter(is_of_now).or(right.clone());
    }

    /// What is above this sequence is still in doubt.
    pub(super) fn above(&self, lane: Lane, incarnation: &Incarnation) -> Option<i64> {
        let beliefs = self.lock();
        let (of, sequence) = beliefs.get(&lane)?.doubted.as_ref()?;
        (of == incarnation).then_some(*sequence)
    }

    /// Everything up to this sequence is stored.
    pub(super) fn settled(&self, lane: Lane, up_to: i64) {
        if let Some((_, sequence)) = self.lock().entry(lane).or_default().doubted.as_mut() {
            *sequence = up_to.max(*sequence);
        }
    }

    /// Everything that was in doubt is stored.
    pub(super) fn dispelled(&self, lane: Lane) {
        self.lock().entry(lane).or_default().doubted = None;
    }

    /// Says at the end of the daemon what it has not come to.
    pub fn tell(&self) {
        for (lane, belief) in &*self.lock() {
            if let Some((_, sequence)) = &belief.doubted {
                tracing::warn!(
                    lane = lane.prefix(),
                    "the consumer {} was wrong for a while, and what it may have passed over above sequence {sequence} is not \
                     stored yet: `ledgerd reconcile` says what is missing",
                    lane.consumer()
                );
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Lane, Belief>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incarnation(created_ns: i64) -> Incarnation {
        Incarnation { stream: "LEDGER".into(), created_ns }
    }

    #[test]
    fn what_is_above_the_last_right_floor_is_in_doubt_until_it_is_settled() {
        let (doubts, lane, now) = (Doubts::default(), Lane::Exec, incarnation(1));
        doubts.is_wrong(lane);
        assert_eq!(doubts.above(lane, &now), None, "nobody knows from where on");
        doubts.is_right(lane, &now, 3);
        assert_eq!(doubts.above(lane, &now), None);
        doubts.is_wrong(lane);
        doubts.is_right(lane, &now, 800);
        doubts.is_wrong(lane);
        assert_eq!(doubts.above(lane, &now), Some(3), "what was in doubt before stays so");
        doubts.settled(lane, 10);
        assert_eq!((doubts.above(lane, &now), doubts.above(Lane::Vote, &now)), (Some(10), None));
        doubts.dispelled(lane);
        assert_eq!(doubts.above(lane, &now), None);
    }

    #[test]
    fn a_stream_that_was_made_anew_has_doubts_of_its_own() {
        let (doubts, lane) = (Doubts::default(), Lane::Exec);
        doubts.is_right(lane, &incarnation(1), 3);
        doubts.is_wrong(lane);
        doubts.is_right(lane, &incarnation(2), 0);
        assert_eq!(doubts.above(lane, &incarnation(2)), None);
        doubts.is_wrong(lane);
        assert_eq!(doubts.above(lane, &incarnation(2)), Some(0));
    }
}
