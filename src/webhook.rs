//! What becomes of a webhook's body? It is published as it came, in the name of the actor that it names, and the answer is its receipt.

use crate::domain::bearer::Bearer;
use crate::domain::digest::{hex, sha256};
use crate::domain::receipt::{Receipt, Status, own_id};
use crate::domain::reject::Reason;
use crate::domain::subject::{Lane, Table};
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::Future;
use tokio::time::Instant;

/// What is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    /// An audit event: `HEGEMON_AUDIT_WEBHOOK`.
    Audit,
    /// The token usage of a model call: `HEGEMON_TOKEN_WEBHOOK`.
    Tokens,
}

/// A body that can be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// `ledger.<LANE>.<ACTOR>`.
    pub subject: String,
    /// What the stream recognises it by, where the caller wants that.
    pub message_id: Option<String>,
    /// The body, unchanged.
    pub payload: Bytes,
    table: Table,
}

/// What became of a posting within the caller's patience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is committed.
    Told(Box<Receipt>),
    /// It is in the stream, and will be committed.
    Queued,
    /// It is not known to be in the stream.
    Unsafe(String),
}

/// Where postings go.
pub trait Intake: Send + Sync + 'static {
    /// Publishes, and waits for the receipt until the deadline.
    fn submit(&self, posting: Posting, deadline: Instant) -> impl Future<Output = Outcome> + Send;
}

/// What the caller hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of HTTP.
    pub status: u16,
    /// Always with `status`, `event_id` and `integrity_hash`.
    pub body: Value,
}

impl Webhook {
    /// Both.
    pub const ALL: [Webhook; 2] = [Webhook::Audit, Webhook::Tokens];

    /// Its path; n8n's own webhooks had it before.
    pub const fn path(self) -> &'static str {
        match self {
            Webhook::Audit => "/webhook/hegemon-audit-log",
            Webhook::Tokens => "/webhook/hegemon-token-log",
        }
    }

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Webhook::Audit => "audit",
            Webhook::Tokens => "tokens",
        }
    }

    const fn actor_field(self) -> &'static str {
        match self {
            Webhook::Audit => "actor",
            Webhook::Tokens => "agent_name",
        }
    }

    /// Finds out where a body goes. It is judged later, like any other message.
    ///
    /// # Errors
    /// The answer, where it goes nowhere.
    pub fn read(self, bearer: &Bearer, idempotency_key: Option<&[u8]>, body: Bytes) -> Result<Posting, Answer> {
        // Only the outermost level is read, so that whatever the strict judge finds wrong with the rest is put on record.
        let fields: HashMap<String, &RawValue> = serde_json::from_slice(&body).map_err(|error| {
            if error.is_data() {
                return Answer::failed(422, Reason::WrongType.code(), "the body must be a JSON object");
            }
            Answer::failed(400, Reason::MalformedJson.code(), &format!("the body is not JSON: {error}"))
        })?;
        let text = |field: &str| fields.get(field).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        let field = self.actor_field();
        let actor = text(field).filter(|actor| !actor.is_empty()).ok_or_else(|| {
            let why = format!("the field {field} must be a string that names the actor");
            Answer::failed(422, Reason::MissingField.code(), &why)
        })?;
        if !bearer.writes_for(&actor) {
            let why = format!("this X-Hegemon-Token does not write for the {field} of the body");
            return Err(Answer::failed(403, Reason::ActorMismatch.code(), &why));
        }
        let lane = match self {
            Webhook::Tokens => Lane::Tokens,
            // Without a lane of its own it becomes a dead letter of the system's.
            Webhook::Audit => text("event_id").and_then(|id| audit_lane(&id)).unwrap_or(Lane::Sys),
        };
        let subject = format!("ledger.{lane}.{actor}");
        let message_id = idempotency_key.map(|key| message_id(bearer, key, &subject, &body));
        Ok(Posting { subject, message_id, payload: body, table: lane.table() })
    }
}

fn audit_lane(event_id: &str) -> Option<Lane> {
    event_id.split('-').next()?.parse().ok().filter(|lane: &Lane| lane.table() == Table::AuditEvents)
}

/// Message ids are shared by the whole stream: nobody without the token can guess this one, nor use the key for another body.
fn message_id(bearer: &Bearer, key: &[u8], subject: &str, body: &[u8]) -> String {
    let parts = [bearer.token_sha256(), key, subject.as_bytes(), body].map(sha256);
    hex(&sha256(&parts.concat()))
}

impl Posting {
    /// The record's own id, where it can be read.
    pub fn record_id(&self) -> Option<String> {
        own_id(&self.payload, self.table)
    }
}

impl Answer {
    /// Every status that there is.
    pub const STATUSES: [u16; 10] = [200, 202, 400, 401, 403, 408, 413, 422, 429, 503];

    /// What the caller of this posting hears.
    pub fn to(record_id: Option<&str>, outcome: Outcome) -> Self {
        match outcome {
            Outcome::Told(receipt) => match *receipt {
                Receipt { status: Status::Rejected, event_id, reason, detail, .. } => Self {
                    status: 422,
                    body: json!({
                        "event_id": event_id, "integrity_hash": null, "status": "FAILED", "reason": reason, "detail": detail,
                    }),
                },
                // The same record again is no error: it is logged.
                Receipt { event_id, integrity_hash, .. } => Self {
                    status: 200,
                    body: json!({ "event_id": event_id, "integrity_hash": integrity_hash, "status": "LOGGED" }),
                },
            },
            Outcome::Queued => Self {
                status: 202,
                body: json!({
                    "event_id": record_id, "integrity_hash": null, "status": "QUEUED",
                    "detail": "it is safe in the stream, and is committed later",
                }),
            },
            Outcome::Unsafe(why) => Self::failed(503, "not_safe", &why),
        }
    }

    /// It is not in the ledger.
    pub fn failed(status: u16, reason: &str, detail: &str) -> Self {
        let body =
            json!({ "event_id": null, "integrity_hash": null, "status": "FAILED", "reason": reason, "detail": detail });
        Self { status, body }
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
