//! Derives the row that a record must have produced, from the bytes in custody alone. Rules, agents and registries
//! change; recorded messages do not.

use crate::record::decimal::Decimal;
use crate::record::event::integrity_hash;
use crate::record::fields::as_uuid;
use crate::record::json::Object;
use crate::record::json_value::Json;
use crate::record::message::{Message, utc_text};
use crate::record::metric::recorded_period;
use crate::record::stored_id::ContentFingerprint;
use crate::record::subject::Subject;
use crate::record::table::Table;
use crate::record::timestamp::{EventTime, printed};
use crate::record::tool_usage::derived_uuid;
use std::borrow::Cow;

/// What a column must hold, in the form in which PostgreSQL prints it.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpectedValue<'a> {
    /// This text, or null.
    Text(Option<Cow<'a, str>>),
    /// This number, or null.
    Number(Option<Decimal>),
    /// What this JSON says, or null.
    Json(Option<RecordFacts<'a>>),
    /// This venture, or null once the venture is gone.
    Venture(Option<String>),
    /// Whatever follows from the rates that the row names.
    Priced,
}

/// JSON as its publisher wrote it, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordFacts<'a> {
    pub text: &'a str,
    pub value: Json<'a>,
}

impl RecordFacts<'_> {
    /// Whether a JSON text says the same.
    pub fn is_said_by(&self, text: &str) -> bool {
        Json::parse(text, NESTING_MAX).is_ok_and(|value| value.says_the_same(&self.value))
    }
}

/// A usage that was charged by rates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pricing {
    /// Whose rates, where the publisher named the tier.
    pub tier: Option<String>,
    /// Tokens at the first rate.
    pub tokens_input: i64,
    /// Tokens at the second.
    pub tokens_output: i64,
}

impl Pricing {
    /// What it cost: rates are per 1,000 tokens.
    pub fn cost(&self, input_rate: &Decimal, output_rate: &Decimal) -> Decimal {
        input_rate.times(self.tokens_input).plus(&output_rate.times(self.tokens_output)).thousandth()
    }
}

/// The row that a record made.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<'a> {
    pub record_id: Cow<'a, str>,
    /// What each of [`RecordRows::columns`] must hold.
    pub values: Vec<ExpectedValue<'a>>,
    /// How the columns that are [`ExpectedValue::Priced`] are found.
    pub pricing: Option<Pricing>,
}

/// The deepest nesting that any configuration has allowed.
const NESTING_MAX: usize = 128;

impl<'a> Row<'a> {
    /// Derives the row of a record that was committed at this moment. An audit event may be stored under another id than its
    /// publisher's: `stored_as` is the id that custody has, which counts if these bytes can have it.
    ///
    /// # Errors
    /// A sentence: no record can have been these bytes on this subject.
    pub fn of(message: &'a Message, committed_at_us: i64, stored_as: Option<&str>) -> Result<Self, String> {
        let subject = Subject::parse(&message.subject).ok_or("its subject is of no lane")?;
        let object = Object::parse(&message.payload, NESTING_MAX).map_err(|rejection| rejection.to_string())?;
        let said = RecordFields { object };
        let committed_at = moment(committed_at_us);
        match subject.lane.table() {
            Table::AuditEvents => audit_event(said, message, committed_at, stored_as),
            Table::TokenLedger => token_usage(&said, message),
            Table::DecisionTrails => trail(said, committed_at),
            Table::EconomicMetrics => metric(&said, subject, message, committed_at),
            Table::ToolUsageLedger => tool_usage(&said, message),
        }
    }
}

fn audit_event<'a>(
    mut said: RecordFields<'a>,
    message: &'a Message,
    committed_at: Option<String>,
    stored_as: Option<&str>,
) -> Result<Row<'a>, String> {
    let [event_id, actor, action, outcome] = ["event_id", "actor", "action", "outcome"].map(|name| said.text(name));
    let (event_id, actor, action, outcome) = (event_id?, actor?, action?, outcome?);
    let timestamp = said.optional_text("timestamp")?;
    let event_id = match stored_as {
        Some(id) if id != event_id => {
            let ids = ContentFingerprint::of(message, timestamp.is_some()).ids(&event_id);
            ids.into_iter().find(|own| own == id).map_or(event_id, Cow::Owned)
        }
        _ => event_id,
    };
    // A daemon that stamps what has no timestamp took the server's.
    let timestamp = timestamp.unwrap_or_else(|| utc_text(message.first_time_ns()).into());
    let time = time("timestamp", &timestamp)?;
    let hash = integrity_hash(&event_id, &actor, &action, &outcome, time.text());
    Ok(Row {
        record_id: event_id.clone(),
        values: vec![
            some(event_id),
            some(actor),
            some(action),
            some(outcome),
            ExpectedValue::Json(said.json("details")),
            ExpectedValue::Text(said.optional_text("task_id")?),
            some(time.utc_printed()),
            some(hash),
            ExpectedValue::Text(committed_at.map(Cow::Owned)),
            some(timestamp),
        ],
        pricing: None,
    })
}

fn token_usage<'a>(said: &RecordFields<'a>, message: &Message) -> Result<Row<'a>, String> {
    let given_id = said.optional_text("usage_id")?;
    let id_is_given = given_id.is_some();
    let usage_id = given_id.unwrap_or_else(|| message.place().into());
    let time = said.optional_text("timestamp")?.map(|text| time("timestamp", &text)).transpose()?;
    let date = match &time {
        Some(time) => time.utc_date(),
        None => utc_text(message.server_time_ns).chars().take("YYYY-MM-DD".len()).collect(),
    };
    let count = |name| said.count(name)?.ok_or_else(|| format!("{name} is absent"));
    let (tokens_input, tokens_output) = (count("tokens_input")?, count("tokens_output")?);
    let model_tier = said.optional_text("model_tier")?;
    let cost = said.number("cost_usd")?;
    let pricing =
        cost.is_none().then(|| Pricing { tier: model_tier.clone().map(Cow::into_owned), tokens_input, tokens_output });
    let mut values = vec![
        some(said.text("agent_name")?),
        some(usage_id.clone()),
        some(id_is_given.to_string()),
        some(date),
        some(tokens_input.to_string()),
        some(tokens_output.to_string()),
        ExpectedValue::Text(model_tier),
        ExpectedValue::Text(said.optional_text("model_used")?),
        ExpectedValue::Text(said.optional_text("task_id")?),
        ExpectedValue::Text(said.optional_text("operation_type")?),
        ExpectedValue::Text(time.map(|time| time.text().to_owned().into())),
        some(cost.is_some().to_string()),
    ];
    values.extend(match cost {
        Some(cost) => [ExpectedValue::Number(Some(cost)), ExpectedValue::Text(None), ExpectedValue::Text(None)],
        None => [ExpectedValue::Priced, ExpectedValue::Priced, ExpectedValue::Priced],
    });
    Ok(Row { record_id: usage_id, values, pricing })
}

fn trail(mut said: RecordFields<'_>, committed_at: Option<String>) -> Result<Row<'_>, String> {
    let trail_id = said.text("trail_id")?;
    Ok(Row {
        record_id: trail_id.clone(),
        values: vec![
            some(trail_id),
            ExpectedValue::Json(said.json("council_vote")),
            ExpectedValue::Json(said.json("proposal")),
            some(said.text("outcome")?),
            ExpectedValue::Text(said.optional_text("ledger_ref")?),
            ExpectedValue::Text(committed_at.map(Cow::Owned)),
        ],
        pricing: None,
    })
}

fn metric<'a>(
    said: &RecordFields<'a>,
    subject: Subject<'a>,
    message: &Message,
    committed_at: Option<String>,
) -> Result<Row<'a>, String> {
    let key = said.text("metric_key")?;
    let given = said.optional_text("period")?;
    let period = recorded_period(&key, given.as_deref()).map_err(|rejection| rejection.to_string())?;
    Ok(Row {
        record_id: key.clone(),
        values: vec![
            some(key),
            ExpectedValue::Number(said.number("metric_value")?),
            ExpectedValue::Text(period.map(Cow::Owned)),
            some(said.optional_text("set_by")?.unwrap_or(subject.actor.into())),
            ExpectedValue::Text(committed_at.map(Cow::Owned)),
            some(message.server_time_ns.to_string()),
        ],
        pricing: None,
    })
}

fn tool_usage(said: &RecordFields<'_>, message: &Message) -> Result<Row<'static>, String> {
    let id = said.uuid("id")?.unwrap_or_else(|| derived_uuid(message));
    let required = |name| said.uuid(name)?.ok_or_else(|| format!("{name} is absent"));
    let created_at = match said.optional_text("created_at")? {
        Some(text) => time("created_at", &text)?.utc_printed(),
        None => moment_of_ns(message.server_time_ns).ok_or("its server time is none")?,
    };
    let cost = said.number("cost_usd")?.unwrap_or(Decimal::ZERO);
    Ok(Row {
        record_id: id.into(),
        values: vec![
            some(required("agent_id")?),
            ExpectedValue::Venture(said.uuid("venture_id")?),
            some(required("tool_id")?),
            some(said.count("tokens_consumed")?.unwrap_or(0).to_string()),
            ExpectedValue::Number(Some(cost.rounded(6))),
            ExpectedValue::Text(said.count("execution_ms")?.map(|count| count.to_string().into())),
            some(format!("{created_at}+00")),
        ],
        pricing: None,
    })
}

fn some<'a>(text: impl Into<Cow<'a, str>>) -> ExpectedValue<'a> {
    ExpectedValue::Text(Some(text.into()))
}

/// A `timestamp` of PostgreSQL, in UTC.
pub fn moment(unix_us: i64) -> Option<String> {
    let moment = jiff::Timestamp::from_microsecond(unix_us).ok()?;
    Some(printed(jiff::tz::Offset::UTC.to_datetime(moment)))
}

/// The moment that PostgreSQL makes of text with nanoseconds: it reads the fraction as a double, and rounds that.
fn moment_of_ns(unix_ns: i64) -> Option<String> {
    let (second, nanosecond) = (unix_ns.div_euclid(1_000_000_000), unix_ns.rem_euclid(1_000_000_000));
    let fraction: f64 = format!("0.{nanosecond:09}").parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "it is a whole number up to a million")]
    let microsecond = (fraction * 1e6).round_ties_even() as i64;
    moment(second.checked_mul(1_000_000)?.checked_add(microsecond)?)
}

fn time(name: &str, text: &str) -> Result<EventTime, String> {
    EventTime::parse_field(name, text.to_owned()).map_err(|rejection| rejection.to_string())
}

/// What the publisher said, field by field.
struct RecordFields<'a> {
    object: Object<'a>,
}

impl<'a> RecordFields<'a> {
    fn optional_text(&self, name: &str) -> Result<Option<Cow<'a, str>>, String> {
        match self.object.get(name) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("{name} is no string")),
        }
    }

    fn text(&self, name: &str) -> Result<Cow<'a, str>, String> {
        self.optional_text(name)?.ok_or_else(|| format!("{name} is absent"))
    }

    fn uuid(&self, name: &str) -> Result<Option<String>, String> {
        let Some(text) = self.optional_text(name)? else { return Ok(None) };
        as_uuid(&text).map(Some).ok_or_else(|| format!("{name} is no UUID"))
    }

    /// Takes a value out, of which there may be much.
    fn json(&mut self, name: &str) -> Option<RecordFacts<'a>> {
        self.object.take(name).map(|member| RecordFacts { text: member.text, value: member.value })
    }

    fn number(&self, name: &str) -> Result<Option<Decimal>, String> {
        let Some(text) = self.object.text_of(name) else { return Ok(None) };
        Decimal::parse(text).map(Some).ok_or_else(|| format!("{name} is no number"))
    }

    fn count(&self, name: &str) -> Result<Option<i64>, String> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        let whole = number.rounded(0);
        let count = whole.to_string().parse().ok().filter(|_| whole == number);
        count.map(Some).ok_or_else(|| format!("{name} is no whole number"))
    }
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
