//! Validates council votes (LDG-002, table 3): all votes on a proposal, and the outcome.

use crate::record::event::is_unix_ms;
use crate::record::fields::{Field, Fields, readable_text, wrong_type};
use crate::record::json::Object;
use crate::record::json_value::{Json, Member};
use crate::record::lengths::EVENT_ID_CHARS_MAX;
use crate::record::reject::{Reason, Rejection, quote};
use crate::record::rules::Rules;
use crate::record::subject::Subject;

/// A council vote that passed every rule: exactly what its row in `decision_trails` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trail {
    /// `TRAIL-{proposal_id}-{unix ms}`.
    pub trail_id: String,
    /// Who voted what: the publisher's own text of the object.
    pub council_vote: String,
    /// The publisher's own text of the proposal's summary.
    pub proposal: String,
    /// One of [`OUTCOMES`].
    pub outcome: String,
    /// The `event_id` of the `VOTE_RECORDED`, which may arrive later.
    pub ledger_ref: Option<String>,
}

pub(crate) const FIELDS: [Field; 5] =
    [("trail_id", true), ("council_vote", true), ("proposal", true), ("outcome", true), ("ledger_ref", false)];

/// LDG-002, table 3, `outcome`.
pub const OUTCOMES: [&str; 4] = ["APPROVED", "REJECTED", "TIMEOUT", "VETOED"];
/// LDG-002, the outcomes of `VOTE_CAST`.
pub const VOTES: [&str; 3] = ["APPROVED", "REJECTED", "ABSTAIN"];
/// `outcome VARCHAR(20)`.
const OUTCOME_CHARS_MAX: usize = 20;
pub(crate) const COUNCIL: &str = "council";

impl Trail {
    /// Judges an object against every rule of its lane.
    pub(crate) fn judge(object: &Object<'_>, subject: Subject<'_>, rules: &Rules) -> Result<Self, Rejection> {
        let fields = Fields::of("a decision trail", object, &FIELDS)?;
        let trail_id = fields.text("trail_id", EVENT_ID_CHARS_MAX)?;
        let (votes, council_vote) = fields.object("council_vote")?;
        let (summary, proposal) = fields.object("proposal")?;
        let outcome = fields.text("outcome", OUTCOME_CHARS_MAX)?;
        let ledger_ref = fields.optional_text("ledger_ref", EVENT_ID_CHARS_MAX)?;

        rules.agents.admit(subject.actor)?;
        rules.settings.writers.admit_to_trails(subject.actor)?;
        check_trail_id(trail_id, summary)?;
        if !OUTCOMES.contains(&outcome) {
            return Err(not_one_of("outcome", outcome, &OUTCOMES));
        }
        check_votes(votes, outcome, rules)?;
        Ok(Self {
            trail_id: trail_id.to_owned(),
            council_vote: council_vote.to_owned(),
            proposal: proposal.to_owned(),
            outcome: outcome.to_owned(),
            ledger_ref: ledger_ref.map(str::to_owned),
        })
    }
}

/// The trail id of a message that may be bad in any other way.
pub(crate) fn readable_trail_id(object: &Object<'_>) -> Option<String> {
    readable_text(object, "trail_id", EVENT_ID_CHARS_MAX)
}

fn check_trail_id(trail_id: &str, summary: &Json<'_>) -> Result<(), Rejection> {
    let proposal_id = match summary.get("proposal_id") {
        Some(Json::Text(id)) if !id.is_empty() => id,
        Some(other) if !other.is_null() && other.as_str().is_none() => {
            return Err(wrong_type("proposal.proposal_id", "a string", other));
        }
        _ => {
            let detail = "proposal.proposal_id is required, and is absent or empty";
            return Err(Rejection::new(Reason::DetailsMismatch, detail));
        }
    };
    let unix_ms = trail_id
        .strip_prefix("TRAIL-")
        .and_then(|rest| rest.strip_prefix(&**proposal_id))
        .and_then(|rest| rest.strip_prefix('-'));
    if unix_ms.is_some_and(is_unix_ms) {
        return Ok(());
    }
    Err(Rejection::new(
        Reason::BadEventId,
        &format!(
            "trail_id {} must be TRAIL-{}-{{Unix milliseconds of 13 digits}}, after proposal.proposal_id",
            quote(trail_id),
            quote(proposal_id).trim_matches('"')
        ),
    ))
}

fn check_votes(votes: &Json<'_>, outcome: &str, rules: &Rules) -> Result<(), Rejection> {
    let mut votes: Vec<_> = votes.members().expect("its type was checked").iter().collect();
    // Of several that are bad the same is named, in whichever order they stand.
    votes.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    if votes.is_empty() && matches!(outcome, "APPROVED" | "REJECTED") {
        let detail = format!("council_vote is empty, and nobody's votes cannot have {outcome} a proposal");
        return Err(Rejection::new(Reason::DetailsMismatch, &detail));
    }
    for Member { key: voter, value: vote, .. } in votes {
        rules.agents.admit(voter)?;
        if rules.agents.group(voter) != Some(COUNCIL) {
            return Err(Rejection::new(
                Reason::ActionNotAllowed,
                &format!("council_vote names {}, who is not a member of the council", quote(voter)),
            ));
        }
        let field = format!("council_vote.{voter}");
        let vote = vote.as_str().ok_or_else(|| wrong_type(&field, "a string", vote))?;
        if !VOTES.contains(&vote) {
            return Err(not_one_of(&field, vote, &VOTES));
        }
    }
    Ok(())
}

fn not_one_of(field: &str, found: &str, allowed: &[&str]) -> Rejection {
    Rejection::new(
        Reason::OutcomeNotAllowed,
        &format!("{field} is {}; allowed are {}", quote(found), allowed.join(", ")),
    )
}
