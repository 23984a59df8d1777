//! Records the program's own actions as audit events, in the same custody as any other event, without NATS.
//!
//! Each kind has its own stream, which exists on no server. Each action has a number, which is its sequence. So an
//! event that a killed command left out is recorded by the next, and none is recorded twice. For that, an action must
//! give the same bytes each time.

use crate::command::rules;
use crate::ingest::lifecycle::{Batch, Delivery, StoreError, Tally};
use crate::ingest::position::Order;
use crate::ingest::store::Ledger;
use crate::record::message::{Headers, Incarnation, Message, utc_text};
use crate::record::own_streams::SUBJECT;
use serde_json::{Value, json};
use std::sync::Arc;

/// Something that the program did.
#[derive(Clone, Debug)]
pub(crate) struct OwnEvent {
    /// Its number within its kind.
    pub(crate) sequence: i64,
    /// `SYS-ARCHITECT-{unix ms}`.
    pub(crate) event_id: String,
    /// What it was, as the Action Registry names it.
    pub(crate) action: &'static str,
    /// When, in microseconds since 1970.
    pub(crate) at_us: i64,
    /// What the action's schema asks for.
    pub(crate) details: Value,
}

/// Records what was done, each once. The tally says what became of it: a rejected event is a dead letter like any other.
pub(crate) async fn record(ledger: &Ledger, stream: &str, events: Vec<OwnEvent>) -> Result<Tally, StoreError> {
    // It never existed on a server, so it was made at the beginning of time.
    let incarnation = Incarnation { stream: Arc::from(stream), created_ns: 0 };
    let deliveries =
        events.into_iter().map(|event| Delivery::new(event.message(&incarnation), Order::Late, ())).collect();
    let batch = Batch::judge(deliveries, &rules::shipped());
    match batch.commit(ledger).await {
        Ok(durable) => Ok(durable.settled()),
        Err(undone) => Err(undone.error),
    }
}

impl OwnEvent {
    fn message(self, incarnation: &Incarnation) -> Message {
        let event = json!({
            "event_id": self.event_id,
            "actor": "ARCHITECT",
            "action": self.action,
            "outcome": "SUCCESS",
            "timestamp": utc_text(self.at_us * 1000),
            "details": self.details,
        });
        Message {
            incarnation: incarnation.clone(),
            sequence: self.sequence,
            subject: SUBJECT.to_owned(),
            server_time_ns: self.at_us * 1000,
            headers: Headers::NONE,
            payload: event.to_string().into(),
        }
    }
}
