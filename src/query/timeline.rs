//! The timeline: records of every lane and rejects among them, the newest first. It is merged from several sources, each of which
//! an index gives in order. A page reads a bounded number of rows, whatever the filter is.

mod cursor;
mod merge;
mod sources;
mod tail;

pub(crate) use crate::query::line::TimelineLine;
pub(crate) use tail::Tail;

use crate::postgres::remedy::DatabaseError;
use crate::query::line::{self, REJECTED};
use crate::query::{BadQuestion, Reader};
use crate::record::timestamp::EventTime;
use cursor::Cursor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type};
use utoipa::{IntoParams, ToSchema};

/// What a page of the timeline shows.
#[derive(Clone, Debug, Default, Deserialize, IntoParams, JsonSchema)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct TimelineFilter {
    /// Only what this agent published.
    pub(crate) actor: Option<String>,
    /// Only events and usage of this task.
    pub(crate) task: Option<String>,
    /// Only this lane.
    #[param(example = "EXEC")]
    pub(crate) lane: Option<String>,
    /// Only this outcome: an event's or a decision trail's own; `recorded` for records without one; `rejected`.
    pub(crate) outcome: Option<String>,
    /// Only from this moment on: a UTC day, or a time as in RFC 3339.
    #[param(schema_with = day_or_time)]
    pub(crate) since: Option<String>,
    /// Only before this moment. A day means its midnight.
    #[param(schema_with = day_or_time)]
    pub(crate) until: Option<String>,
    /// The `next` of the page before.
    pub(crate) cursor: Option<String>,
    /// How many lines, 500 at most.
    #[param(minimum = 1, maximum = 500)]
    pub(crate) limit: Option<u16>,
}

/// A day or a time, for the description of the API.
fn day_or_time() -> Schema {
    let of = |format, example: &str| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(format)))
            .examples([example])
    };
    let (day, time) = (of(KnownFormat::Date, "2026-02-20"), of(KnownFormat::DateTime, "2026-02-20T17:47:14Z"));
    // What a form sends for a field that nobody filled in.
    let nothing = ObjectBuilder::new().schema_type(Type::String).max_length(Some(0));
    OneOfBuilder::new().item(day).item(time).item(nothing).build().into()
}

pub(crate) const LINES_DEFAULT: u16 = 50;
pub(crate) const LINES_MAX: u16 = 500;
/// Pages that are read for one answer; where few lines match, they are what takes time.
const PAGES_MAX: usize = 40;
/// Longer than any name or id that a record may have.
const TEXT_CHARS_MAX: usize = 300;

/// A page of the timeline.
#[derive(Clone, Debug, Serialize, ToSchema, JsonSchema)]
pub(crate) struct TimelinePage {
    pub(crate) lines: Vec<TimelineLine>,
    /// The cursor of the page that follows; absent on the last one.
    pub(crate) next: Option<String>,
    /// Set where a page has fewer lines than it could: so far back the search has come, and the next page goes on from there.
    pub(crate) searched_back_to: Option<String>,
}

/// A filter that was checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct TimelineQuestion {
    pub(crate) actor: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) lane: Option<String>,
    pub(crate) outcome: Option<String>,
    pub(crate) since_us: Option<i64>,
    pub(crate) until_us: Option<i64>,
    cursor: Cursor,
    limit: usize,
}

impl TimelineFilter {
    /// Checks it. A field that is empty, as forms send it, filters nothing.
    pub(crate) fn question(&self) -> Result<TimelineQuestion, BadQuestion> {
        let cursor = match text("cursor", self.cursor.as_ref())? {
            None => Cursor::default(),
            Some(given) => Cursor::parse(&given)
                .ok_or_else(|| BadQuestion::new("cursor", "is not the `next` of a page; leave it out to begin anew"))?,
        };
        let limit = self.limit.unwrap_or(LINES_DEFAULT);
        if !(1..=LINES_MAX).contains(&limit) {
            return Err(BadQuestion::new("limit", "must be from 1 to 500"));
        }
        Ok(TimelineQuestion {
            actor: text("actor", self.actor.as_ref())?,
            task: text("task", self.task.as_ref())?,
            lane: text("lane", self.lane.as_ref())?,
            outcome: text("outcome", self.outcome.as_ref())?,
            since_us: moment("since", self.since.as_ref())?,
            until_us: moment("until", self.until.as_ref())?,
            cursor,
            limit: usize::from(limit),
        })
    }

    /// The filters that are set, by their names: what an address carries.
    pub(crate) fn pairs(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("actor", &self.actor),
            ("task", &self.task),
            ("lane", &self.lane),
            ("outcome", &self.outcome),
            ("since", &self.since),
            ("until", &self.until),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?.trim())))
            .filter(|it| !it.1.is_empty())
            .collect()
    }
}

/// A field's text; `None` where it is empty.
pub(crate) fn text(name: &'static str, value: Option<&String>) -> Result<Option<String>, BadQuestion> {
    let value = value.map(|value| value.trim()).filter(|value| !value.is_empty());
    value.map(|value| checked(name, value)).transpose()
}

fn checked(name: &'static str, value: &str) -> Result<String, BadQuestion> {
    if value.chars().count() > TEXT_CHARS_MAX {
        return Err(BadQuestion::new(name, "is longer than any id; it may have 300 characters"));
    }
    if value.contains('\0') {
        return Err(BadQuestion::new(name, "holds U+0000, which no record does"));
    }
    Ok(value.to_owned())
}

/// The same for an id that is part of an address: it is taken as it stands.
pub(crate) fn required(name: &'static str, value: &str) -> Result<String, BadQuestion> {
    if value.is_empty() { Err(BadQuestion::new(name, "is empty")) } else { checked(name, value) }
}

fn moment(name: &'static str, value: Option<&String>) -> Result<Option<i64>, BadQuestion> {
    let Some(given) = text(name, value)? else { return Ok(None) };
    let is_day = given.len() == "YYYY-MM-DD".len();
    let whole = if is_day { format!("{given}T00:00:00Z") } else { given };
    let at_us = EventTime::parse(whole).ok().and_then(|time| line::at_us(time.text()));
    let what = "is neither a day such as 2026-02-20 nor a time such as 2026-02-20T17:47:14Z";
    at_us.map(Some).ok_or_else(|| BadQuestion::new(name, what))
}

impl TimelineQuestion {
    /// Whether the filter lets a line pass.
    pub(crate) fn admits(&self, line: &TimelineLine) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        is(&self.actor, &line.actor)
            && is(&self.lane, &line.lane)
            && is(&self.outcome, &line.outcome)
            && self.task.as_ref().is_none_or(|wanted| line.task_id.as_ref() == Some(wanted))
            && self.since_us.is_none_or(|since| line.at_us >= since)
            && self.until_us.is_none_or(|until| line.at_us < until)
    }

    fn wants_rejects(&self) -> bool {
        self.outcome.as_ref().is_none_or(|outcome| outcome == REJECTED)
    }

    /// The same question about the page after another one.
    pub(crate) fn after(&self, next: &str) -> Self {
        Self { cursor: Cursor::parse(next).unwrap_or_default(), ..self.clone() }
    }
}

impl Reader {
    /// The lines of several pages, at most so many, and the cursor of what follows.
    pub(crate) async fn timeline_lines(
        &self,
        mut question: TimelineQuestion,
        lines_max: usize,
    ) -> Result<(Vec<TimelineLine>, Option<String>), DatabaseError> {
        let mut lines = Vec::new();
        for pages_left in (0..PAGES_MAX).rev() {
            question.limit = usize::from(LINES_MAX).min(lines_max - lines.len());
            let page = self.timeline(&question).await?;
            lines.extend(page.lines);
            match page.next {
                Some(next) if lines.len() < lines_max && pages_left > 0 => question = question.after(&next),
                next => return Ok((lines, next)),
            }
        }
        Ok((lines, None))
    }

    /// A page of the timeline.
    pub(crate) async fn timeline(&self, question: &TimelineQuestion) -> Result<TimelinePage, DatabaseError> {
        self.0
            .run("reading the timeline", async |connection| {
                let mut fetched = Vec::new();
                for source in sources::of(question) {
                    fetched.push(source.fetch(connection, question, question.limit + 1).await?);
                }
                merge::page(connection, question, fetched).await
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_the_database_is_asked() {
        let with =
            |since: &str| TimelineFilter { since: Some(since.to_owned()), ..TimelineFilter::default() }.question();
        assert_eq!(with("2026-02-20").expect("a day").since_us, Some(1_771_545_600_000_000));
        assert_eq!(with("2026-02-20T01:00:00+01:00").expect("a time").since_us, Some(1_771_545_600_000_000));
        assert_eq!(with("  ").expect("nothing").since_us, None);
        for wrong in ["yesterday", "2026-02-30", "2026-02-2x"] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        for actor in ["a\0b".to_owned(), "x".repeat(301)] {
            assert!(TimelineFilter { actor: Some(actor), ..TimelineFilter::default() }.question().is_err());
        }
        for limit in [0, 501] {
            assert!(TimelineFilter { limit: Some(limit), ..TimelineFilter::default() }.question().is_err());
        }
        assert!(TimelineFilter { cursor: Some("x".to_owned()), ..TimelineFilter::default() }.question().is_err());
    }
}
