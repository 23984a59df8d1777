//! The five webhooks: map a body to the subject on which it is published, and its receipt to an HTTP answer. The body
//! itself is never changed.

use crate::http::api_token::ApiToken;
use crate::record::digest::{hex, sha256};
use crate::record::lane::Lane;
use crate::record::receipt::{Receipt, Status, own_id};
use crate::record::reject::Reason;
use crate::record::table::Table;
use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::Future;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhook {
    /// An audit event: `HEGEMON_AUDIT_WEBHOOK`.
    Audit,
    /// The token usage of a model call: `HEGEMON_TOKEN_WEBHOOK`.
    Tokens,
    Trails,
    Metrics,
    /// The use of a tool.
    Usage,
}

/// What a caller says about itself and its body.
#[derive(Clone, Copy, Debug)]
pub struct WebhookCaller<'a> {
    /// Whoever has its token.
    pub token: &'a ApiToken,
    /// The value of [`ACTOR_HEADER`].
    pub actor: Option<&'a str>,
    /// The value of `Idempotency-Key`.
    pub idempotency_key: Option<&'a [u8]>,
}

/// Names the author of a body.
pub const ACTOR_HEADER: &str = "X-Hegemon-Actor";

/// A body that can be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// `ledger.<LANE>.<ACTOR>`.
    pub subject: String,
    /// What the stream recognises it by, where the caller wants that.
    pub message_id: Option<String>,
    pub payload: Bytes,
    table: Table,
}

/// What became of a posting within the caller's patience.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitOutcome {
    Told(Box<Receipt>),
    /// It is in the stream, and will be committed.
    Queued,
    /// It is not known to be in the stream.
    Unsafe(String),
}

pub trait Submitter: Send + Sync + 'static {
    /// Publishes, and waits for the receipt until the deadline.
    fn submit(&self, posting: Posting, deadline: Instant) -> impl Future<Output = SubmitOutcome> + Send;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookAnswer {
    /// Of HTTP.
    pub status: u16,
    /// Always with `status`, `event_id` and `integrity_hash`.
    pub body: Value,
}

impl Webhook {
    pub const ALL: [Webhook; 5] = [Webhook::Audit, Webhook::Tokens, Webhook::Trails, Webhook::Metrics, Webhook::Usage];

    /// Its path; n8n's own webhooks had the first two before.
    pub const fn path(self) -> &'static str {
        match self {
            Webhook::Audit => "/webhook/hegemon-audit-log",
            Webhook::Tokens => "/webhook/hegemon-token-log",
            Webhook::Trails => "/webhook/hegemon-decision-trail",
            Webhook::Metrics => "/webhook/hegemon-economic-metric",
            Webhook::Usage => "/webhook/hegemon-tool-usage",
        }
    }

    /// Its name in metrics, log and status.
    pub const fn name(self) -> &'static str {
        match self {
            Webhook::Audit => "audit",
            Webhook::Tokens => "tokens",
            Webhook::Trails => "trails",
            Webhook::Metrics => "metrics",
            Webhook::Usage => "usage",
        }
    }

    /// The field of the body that may name its author.
    const fn actor_field(self) -> Option<&'static str> {
        match self {
            Webhook::Audit => Some("actor"),
            Webhook::Tokens => Some("agent_name"),
            Webhook::Trails => None,
            Webhook::Metrics => Some("set_by"),
            // By its UUID: the token may name that, or the same agent as an actor.
            Webhook::Usage => Some("agent_id"),
        }
    }

    fn lane(self, text: impl Fn(&str) -> Option<String>) -> Lane {
        match self {
            // Without a lane of its own it becomes a dead letter of the system's.
            Webhook::Audit => text("event_id").and_then(|id| audit_lane(&id)).unwrap_or(Lane::Sys),
            Webhook::Tokens => Lane::Tokens,
            Webhook::Trails => Lane::Trail,
            Webhook::Metrics => Lane::Metric,
            Webhook::Usage => Lane::Usage,
        }
    }

    /// Finds out where a body goes. It is judged later, like any other message.
    ///
    /// # Errors
    /// The answer, where it goes nowhere.
    pub fn read(self, caller: WebhookCaller<'_>, body: Bytes) -> Result<Posting, WebhookAnswer> {
        // Only the outermost level is read, so that whatever the strict judge finds wrong with the rest is put on record.
        let fields: HashMap<String, &RawValue> = serde_json::from_slice(&body).map_err(|error| {
            if error.is_data() {
                return WebhookAnswer::failed(422, Reason::WrongType.code(), "the body must be a JSON object");
            }
            WebhookAnswer::failed(400, Reason::MalformedJson.code(), &format!("the body is not JSON: {error}"))
        })?;
        let text = |field: &str| fields.get(field).and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        let actor = self.author(caller, text)?;
        let lane = self.lane(text);
        let subject = format!("ledger.{lane}.{actor}");
        let message_id = caller.idempotency_key.map(|key| message_id(caller.token, key, &subject, &body));
        Ok(Posting { subject, message_id, payload: body, table: lane.table() })
    }

    /// The header names the author; without it the body does, and else the token, if that names one actor alone.
    fn author(self, caller: WebhookCaller<'_>, text: impl Fn(&str) -> Option<String>) -> Result<String, WebhookAnswer> {
        if let Some(actor) = caller.actor {
            return if caller.token.writes_for(actor) {
                Ok(actor.to_owned())
            } else {
                Err(not_its_actor(ACTOR_HEADER))
            };
        }
        if let Some(field) = self.actor_field()
            && let Some(actor) = text(field).filter(|actor| !actor.is_empty())
        {
            if caller.token.writes_for(&actor) {
                return Ok(actor);
            }
            if self != Webhook::Usage {
                return Err(not_its_actor(&format!("the field {field}")));
            }
        }
        caller.token.only_actor().map(str::to_owned).ok_or_else(|| self.no_author())
    }

    fn no_author(self) -> WebhookAnswer {
        let in_the_body = match self {
            Webhook::Audit | Webhook::Tokens | Webhook::Metrics => {
                format!("in the field {}, or ", self.actor_field().unwrap_or_default())
            }
            Webhook::Trails | Webhook::Usage => String::new(),
        };
        let why = format!(
            "no actor is named: name it {in_the_body}in the header {ACTOR_HEADER}, or use a token that names one actor alone"
        );
        WebhookAnswer::failed(422, Reason::MissingField.code(), &why)
    }
}

fn not_its_actor(what: &str) -> WebhookAnswer {
    let why = format!(
        "this token does not write for the actor that {what} names: `webhooks.tokens` lists each token's actors"
    );
    WebhookAnswer::failed(403, Reason::ActorMismatch.code(), &why)
}

fn audit_lane(event_id: &str) -> Option<Lane> {
    event_id.split('-').next()?.parse().ok().filter(|lane: &Lane| lane.table() == Table::AuditEvents)
}

/// Message ids are shared by the whole stream: nobody without the token can guess this one, nor use the key for another body.
fn message_id(token: &ApiToken, key: &[u8], subject: &str, body: &[u8]) -> String {
    let parts = [token.token_sha256(), key, subject.as_bytes(), body].map(sha256);
    hex(&sha256(&parts.concat()))
}

impl Posting {
    /// The record's own id, where it can be read.
    pub fn record_id(&self) -> Option<String> {
        own_id(&self.payload, self.table)
    }
}

impl WebhookAnswer {
    /// Every status that there is.
    pub const STATUSES: [u16; 10] = [200, 202, 400, 401, 403, 408, 413, 422, 429, 503];

    /// What the caller of this posting hears.
    pub fn to(record_id: Option<&str>, outcome: SubmitOutcome) -> Self {
        match outcome {
            SubmitOutcome::Told(receipt) => match *receipt {
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
            SubmitOutcome::Queued => Self {
                status: 202,
                body: json!({
                    "event_id": record_id, "integrity_hash": null, "status": "QUEUED",
                    "detail": "it is safe in the stream, and is committed later",
                }),
            },
            SubmitOutcome::Unsafe(why) => Self::failed(503, "not_safe", &why),
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
#[path = "call_tests.rs"]
mod tests;
