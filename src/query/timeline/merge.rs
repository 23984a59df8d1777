//! Merges what the sources of the timeline gave into one page. Each source is read in its own order, so no line is lost or shown
//! twice, even where a line's own time disagrees with that order.

use crate::query::line::{Entry, TimelineLine, lines, utc};
use crate::query::timeline::cursor::Key;
use crate::query::timeline::sources::{Fetched, REJECTS};
use crate::query::timeline::{TimelinePage, TimelineQuestion};
use sqlx::PgConnection;
use std::collections::VecDeque;

/// What is left of a source: its places with their lines, the newest first.
struct Run {
    source: String,
    places: VecDeque<Place>,
    has_more: bool,
    /// What was read beyond here is not known yet.
    ends_us: i64,
}

struct Place {
    key: Key,
    /// The line's time, or that of an older one before it.
    at_us: i64,
    /// `None` where the filter stops it.
    line: Option<TimelineLine>,
}

pub(crate) async fn page(
    connection: &mut PgConnection,
    question: &TimelineQuestion,
    fetched: Vec<Fetched>,
) -> Result<TimelinePage, sqlx::Error> {
    let entries: Vec<&Entry> =
        fetched.iter().flat_map(|of| of.candidates.iter().filter_map(|candidate| candidate.entry.as_ref())).collect();
    let mut found = lines(connection, &entries).await?.into_iter();
    let runs = fetched.into_iter().map(|of| run(of, question, &mut found)).collect();
    Ok(merge(runs, question))
}

fn run(fetched: Fetched, question: &TimelineQuestion, found: &mut impl Iterator<Item = Option<TimelineLine>>) -> Run {
    let mut least_us = i64::MAX;
    // A lane as it came in has its rejects too, and where all lanes are asked for, the source of the rejects shows them.
    let shows_rejects = question.lane.is_some() || fetched.source == REJECTS;
    let is_shown = |line: &TimelineLine| question.admits(line) && (shows_rejects || line.reason.is_none());
    let places: VecDeque<Place> = fetched
        .candidates
        .into_iter()
        .map(|candidate| {
            let line = candidate.entry.and_then(|_| found.next().expect("one for each entry"));
            least_us = least_us.min(line.as_ref().map_or(candidate.at_us, |line| line.at_us));
            Place { key: candidate.key, at_us: least_us, line: line.filter(|line| is_shown(line)) }
        })
        .collect();
    let ends_us = if fetched.has_more { least_us } else { i64::MIN };
    Run { source: fetched.source, places, has_more: fetched.has_more, ends_us }
}

fn merge(mut runs: Vec<Run>, question: &TimelineQuestion) -> TimelinePage {
    // What is older than where the look into some source ended has to wait: that source may have something newer.
    let horizon_us = runs.iter().map(|run| run.ends_us).max().unwrap_or(i64::MIN);
    let (mut taken, mut cursor) = (Vec::new(), question.cursor.clone());
    while taken.len() < question.limit {
        let next = runs
            .iter_mut()
            .filter(|run| run.places.front().is_some_and(|place| place.at_us >= horizon_us))
            .max_by_key(|run| {
                let place = run.places.front();
                (
                    place.map(|place| place.at_us),
                    place.and_then(|place| place.line.as_ref().map(|line| line.leaf_index)),
                )
            });
        let Some(run) = next else { break };
        let Some(place) = run.places.pop_front() else { break };
        cursor.read_to(&run.source, place.key);
        taken.extend(place.line);
    }
    let is_last = runs.iter().all(|run| !run.has_more && run.places.iter().all(|place| place.line.is_none()));
    let is_short = taken.len() < question.limit;
    TimelinePage {
        lines: taken,
        next: (!is_last).then(|| cursor.text()),
        searched_back_to: (!is_last && is_short).then(|| utc(horizon_us)),
    }
}
