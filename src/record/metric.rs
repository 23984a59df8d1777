//! Validates metrics (LDG-002, table 4): the five formats of their keys, each with its rules for value, period and
//! setter.

use crate::record::fields::{Amount, Field, Fields, readable_text};
use crate::record::json::Object;
use crate::record::lengths::ACTOR_CHARS_MAX;
use crate::record::message::Message;
use crate::record::metric_key::{Kind, parse_key, unknown_format};
use crate::record::reject::{Reason, Rejection, quote};
use crate::record::rules::Rules;
use crate::record::subject::Subject;

/// A metric that passed every rule: exactly what its row in `economic_metrics` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Of one of the five formats.
    pub key: String,
    pub value: Amount,
    /// What the key implies, or what was given where it implies nothing.
    pub period: Option<String>,
    /// The actor that published it.
    pub set_by: String,
    /// Whom a daily limit binds: an agent, or a group of agents in capitals.
    pub limits: Option<String>,
    /// When the server stored the message, in nanoseconds since 1970: the newest of a key is the one in force.
    pub published_ns: i64,
}

pub(crate) const FIELDS: [Field; 4] =
    [("metric_key", true), ("metric_value", true), ("period", false), ("set_by", false)];

pub(crate) const KEY_CHARS_MAX: usize = 255;
/// `period VARCHAR(20)`.
pub(crate) const PERIOD_CHARS_MAX: usize = 20;
/// What a double holds to the cent.
pub(crate) const USD_MAX: f64 = 1e13;
/// Per 1,000 tokens. More is a slip of the point, and would spoil the sums of everybody's day.
pub(crate) const RATE_USD_MAX: f64 = 1e6;
/// Limits of the whole system bind nobody alone; they are kept for those who read the table.
pub(crate) const SYSTEM: &str = "SYSTEM";
const DAILY: &str = "daily";

impl Metric {
    /// Judges an object against every rule of its lane.
    pub(crate) fn judge(
        object: &Object<'_>,
        message: &Message,
        subject: Subject<'_>,
        rules: &Rules,
    ) -> Result<Self, Rejection> {
        let fields = Fields::of("a metric", object, &FIELDS)?;
        let key = fields.text("metric_key", KEY_CHARS_MAX)?;
        let period = fields.optional_text("period", PERIOD_CHARS_MAX)?;
        let set_by = fields.optional_text("set_by", ACTOR_CHARS_MAX)?.unwrap_or(subject.actor);

        subject.admit("set_by", set_by)?;
        rules.agents.admit(set_by)?;
        let (kind, rest) = parse_key(key).ok_or_else(|| unknown_format(key))?;
        rules.settings.writers.admit_to_metric(kind, set_by)?;
        let limits = if kind == Kind::DailyLimit { Some(bound_by_limit(rest, rules)?) } else { None };
        let least = if kind == Kind::VentureRevenue { -USD_MAX } else { 0.0 };
        let most = if kind == Kind::TokenRate { RATE_USD_MAX } else { USD_MAX };
        let value = fields.amount("metric_value", least..=most)?;
        Ok(Self {
            key: key.to_owned(),
            value,
            period: implied_period(kind, rest, period)?,
            set_by: set_by.to_owned(),
            limits,
            published_ns: message.server_time_ns,
        })
    }
}

/// The key of a message that may be bad in any other way.
pub(crate) fn readable_key(object: &Object<'_>) -> Option<String> {
    readable_text(object, "metric_key", KEY_CHARS_MAX)
}

/// The period of a metric that was recorded.
pub(crate) fn recorded_period(key: &str, given: Option<&str>) -> Result<Option<String>, Rejection> {
    let (kind, rest) = parse_key(key).ok_or_else(|| unknown_format(key))?;
    implied_period(kind, rest, given)
}

fn bound_by_limit(name: &str, rules: &Rules) -> Result<String, Rejection> {
    if name == SYSTEM || rules.agents.is_registered(name) || rules.agents.has_group_in_capitals(name) {
        return Ok(name.to_owned());
    }
    Err(Rejection::new(
        Reason::UnknownReference,
        &format!(
            "metric_key limits {}, who is neither a registered agent nor a group of them in capitals",
            quote(name)
        ),
    ))
}

/// A limit is daily, and a key with a month is about that month; the others imply no period.
fn implied_period(kind: Kind, rest: &str, given: Option<&str>) -> Result<Option<String>, Rejection> {
    let implied = match kind {
        Kind::DailyLimit => DAILY,
        Kind::VentureRevenue => rest.rsplit_once('_').map_or(rest, |(_, month)| month),
        Kind::OperatingCost => rest,
        Kind::TokenRate | Kind::VentureCapital => return Ok(given.map(str::to_owned)),
    };
    match given {
        Some(other) if !other.eq_ignore_ascii_case(implied) => Err(Rejection::new(
            Reason::DetailsMismatch,
            &format!("period is {}, and metric_key implies {implied}", quote(other)),
        )),
        _ => Ok(Some(implied.to_owned())),
    }
}
