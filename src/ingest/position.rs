//! The position of a lane: the sequence up to which it is stored, the claim to move it, and the operations that move
//! it.
//!
//! The position lives in the database, and moves in the transaction that stores the rows. The consumer on the server is
//! a cursor that is recreated from it.

use crate::record::lane::Lane;
use crate::record::message::{Incarnation, Message};
use crate::record::sequences::Span;
use std::future::Future;

/// The right to move a lane's position. A later claim of the same lane voids it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub lane: Lane,
    /// The epoch, as the database numbers it.
    pub epoch: i32,
    /// How often the epoch's stream went back.
    pub regressions: i32,
    /// Grows with each claim of the lane.
    pub fence: i64,
}

/// What a message follows on, and so how a commit learns whether the message is stored already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The lane's owner read it next after the sequence `after`. The commit moves the lane's position.
    Next {
        /// The right to move it.
        claim: Claim,
        /// The lane's position before this message.
        after: i64,
    },
    /// It was read by its sequence, out of order. The commit looks it up, and moves no position.
    Late,
}

/// What came of the signal to own a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The lane is owned, and is stored up to `position`.
    Owned {
        /// The right to move the position.
        claim: Claim,
        /// Everything up to this sequence is stored.
        position: i64,
        /// What is above this sequence may have been passed over.
        suspect_after: Option<i64>,
    },
    /// Another instance owns the lane, and shows that it is alive.
    Foreign { owner: String },
}

/// What custody has of a message's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceMatch {
    Same,
    /// Another message of this sequence.
    Other,
    Nothing,
}

/// The positions of the lanes, in the store. Each error is a sentence that says why nothing is known.
pub trait Positions {
    /// Takes a lane that nobody owns, or whose owner is silent. Opens the stream's first epoch where there is none.
    fn claim(&self, incarnation: &Incarnation, lane: Lane) -> impl Future<Output = Result<Claimed, String>> + Send;

    /// The lane's reader works: its claim is renewed for a while.
    fn is_alive(&self, lane: Lane);

    /// Moves the position over sequences of which none is the lane's. `from` may equal `to`. Says no if the claim is void, or the
    /// position is not `from`.
    fn pass(&self, claim: Claim, from: i64, to: i64) -> impl Future<Output = Result<bool, String>> + Send;

    /// Records that the stream has lost sequences before they were stored. Says no if that is on record.
    fn record_gap(&self, claim: Claim, gap: Span, why: &str) -> impl Future<Output = Result<bool, String>> + Send;

    /// What is above `after` may have been passed over; `None` ends the suspicion. Until then nobody relies on the position.
    fn suspect(&self, claim: Claim, after: Option<i64>) -> impl Future<Output = Result<(), String>> + Send;

    /// Everything of the lane up to this sequence is stored; 0 where nobody has ever read the lane.
    fn reliable_position(
        &self,
        incarnation: &Incarnation,
        lane: Lane,
    ) -> impl Future<Output = Result<i64, String>> + Send;

    /// The sequences of the lane's last commit in order; what it stored may not have been told to those who ask.
    fn last_commit(&self, claim: Claim) -> impl Future<Output = Result<Option<Span>, String>> + Send;

    /// The highest sequence up to `through` that custody has of an incarnation.
    fn highest(
        &self,
        incarnation: &Incarnation,
        through: i64,
    ) -> impl Future<Output = Result<Option<i64>, String>> + Send;

    /// Compares a message with what custody has of its sequence.
    fn compare(&self, message: &Message) -> impl Future<Output = Result<SequenceMatch, String>> + Send;

    /// Opens a new epoch: from `divergence` on, the stream holds other messages than custody. Claims of the old epoch stay valid for
    /// what was taken before. Does nothing if the newest epoch is not `since` any more.
    fn open_epoch(
        &self,
        incarnation: &Incarnation,
        since: i32,
        divergence: i64,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// The name of this ledger, whatever server or database it was moved to.
    fn ledger_id(&self) -> impl Future<Output = Result<String, String>> + Send;
}

/// How a commit moves the position of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) claim: Claim,
    pub(crate) from: i64,
    pub(crate) to: i64,
}
