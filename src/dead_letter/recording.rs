//! Records decisions about dead letters: each is an audit event in custody before it takes effect.

use crate::command::own_events::{self, OwnEvent};
use crate::command::{Exit, Failure};
use crate::dead_letter::decisions as resolution;
use crate::dead_letter::decisions::Decision;
use crate::ingest::lifecycle::Remedy;
use crate::ingest::store::Ledger;
use crate::record::digest::{hex, sha256};
use crate::record::own_streams::RESOLUTIONS;
use serde_json::{Value, json};

const NAME_CHARS_MAX: usize = 200;
const WHY_CHARS_MAX: usize = 1000;

pub(crate) fn name(text: &str) -> Result<String, String> {
    plain(text, NAME_CHARS_MAX)
}

pub(crate) fn reason(text: &str) -> Result<String, String> {
    plain(text, WHY_CHARS_MAX)
}

fn plain(text: &str, chars_max: usize) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("it must say something".to_owned()),
        count if count > chars_max => Err(format!("it has {count} characters, and {chars_max} are the most")),
        _ if text.contains(char::is_control) => Err("it must be one line of text".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// How often somebody else may decide between our look and our decision.
pub(crate) const RIVALS_MAX: usize = 16;

/// Somebody else decided each time.
pub(crate) fn conflicting_decision(reference: &str) -> Failure {
    Failure::new(Exit::Failed, format!("others keep deciding about {reference}: look at it, and run this again"))
}

/// Records the decisions that a killed command entered and did not record.
pub(crate) async fn record_what_is_unrecorded(ledger: &Ledger) -> Result<(), Failure> {
    for decision in resolution::unrecorded(ledger.connections(), RESOLUTIONS).await? {
        record(ledger, &decision).await?;
    }
    Ok(())
}

/// Records a decision. Where its event is rejected, it is a dead letter like any other.
pub(crate) async fn record(ledger: &Ledger, decision: &Decision) -> Result<(), Failure> {
    let event = OwnEvent {
        sequence: decision.id,
        event_id: decision.event_id.clone(),
        action: decision.action().event(),
        at_us: decision.decided_at_us,
        details: details(decision),
    };
    match own_events::record(ledger, RESOLUTIONS, vec![event]).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let exit = if error.remedy == Remedy::Retry { Exit::Unavailable } else { Exit::Failed };
            let what = format!("the audit event {} is not recorded yet: {error}; run this again", decision.event_id);
            Err(Failure::new(exit, what))
        }
    }
}

/// Everything that was decided, so that `ledgerd verify` can hold the row against it.
fn details(decision: &Decision) -> Value {
    let Decision { leaf_index, reference, round, by, why, .. } = decision;
    let mut details =
        json!({ "dead_letter": reference, "leaf_index": leaf_index, "round": round, "by": by, "why": why });
    if let Some(requeue) = &decision.requeue {
        details["message_id"] = requeue.message_id.as_str().into();
        details["stream"] = (*requeue.from.incarnation.stream).into();
        // As text: a double does not hold it.
        details["stream_created_ns"] = requeue.from.incarnation.created_ns.to_string().into();
        details["after_sequence"] = requeue.from.sequence.into();
        details["replacement_sha256"] = requeue.replacement.as_deref().map(|bytes| hex(&sha256(bytes))).into();
    }
    details
}
