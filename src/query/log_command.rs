//! `ledgerd log`: prints the timeline, and goes on with what is committed.

use crate::command::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::query::Reader;
use crate::query::timeline::{LINES_MAX, TimelineFilter, TimelineLine, TimelineQuestion};
use std::time::Duration;
use tokio::time::sleep;

#[derive(Debug, clap::Args)]
pub(crate) struct LogArguments {
    /// Only what this agent published
    #[arg(long)]
    actor: Option<String>,
    /// Only events and usage of this task
    #[arg(long)]
    task: Option<String>,
    /// Only this lane, such as EXEC
    #[arg(long)]
    lane: Option<String>,
    /// Only this outcome: an event's own, `recorded` for records without one, or `rejected`
    #[arg(long)]
    outcome: Option<String>,
    /// Only from this moment on (a day, or ISO 8601; UTC where it names no offset)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only before this moment; a day means its midnight
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    limit: u32,
    /// Print the newest lines last, and go on with what is committed, until Ctrl-C
    #[arg(long)]
    follow: bool,
}

/// How often the log's end is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Entries that are read at a time.
const ENTRIES_MAX: u16 = 1000;

pub(crate) async fn run(config: &Config, arguments: LogArguments, as_json: bool) -> Result<(), Failure> {
    let reader = Reader(connect::reader(config, 1)?);
    let LogArguments { actor, task, lane, outcome, since, until, limit, follow } = arguments;
    let filter = TimelineFilter { actor, task, lane, outcome, since, until, cursor: None, limit: Some(LINES_MAX) };
    let question = filter.question().map_err(|bad| Failure::new(Exit::Usage, bad))?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    if !follow {
        return print_newest(&reader, question, wanted, |line| print(line, as_json)).await;
    }
    let mut tail = reader.tail().await?;
    let mut newest = Vec::new();
    print_newest(&reader, question.clone(), wanted, |line| newest.push(line.clone())).await?;
    newest.iter().rev().for_each(|line| print(line, as_json));
    // What was committed between the two looks may be among the newest already.
    let mut shown_to = newest.iter().map(|line| line.leaf_index).max().unwrap_or(-1);
    while !output::is_closed() {
        let page = reader.next_since(tail, ENTRIES_MAX).await?;
        if page.tail == tail {
            sleep(LOOK_INTERVAL).await;
        }
        tail = page.tail;
        page.lines
            .iter()
            .filter(|line| line.leaf_index > shown_to && question.admits(line))
            .for_each(|line| print(line, as_json));
        shown_to = page.lines.last().map_or(shown_to, |line| shown_to.max(line.leaf_index));
    }
    Ok(())
}

async fn print_newest(
    reader: &Reader,
    mut question: TimelineQuestion,
    wanted: usize,
    mut told: impl FnMut(&TimelineLine),
) -> Result<(), Failure> {
    let mut left = wanted;
    while left > 0 && !output::is_closed() {
        let page = reader.timeline(&question).await?;
        page.lines.iter().take(left).for_each(&mut told);
        left = left.saturating_sub(page.lines.len());
        match page.next {
            Some(next) => question = question.after(&next),
            None => break,
        }
    }
    Ok(())
}

fn print(line: &TimelineLine, as_json: bool) {
    if as_json {
        output::line(serde_json::json!(line));
    } else {
        output::line(text(line));
    }
}

/// A line of text: time, leaf, agent, lane, what, outcome, task, id.
pub(crate) fn text(line: &TimelineLine) -> String {
    let outcome =
        line.reason.as_ref().map_or_else(|| line.outcome.clone(), |reason| format!("{}: {reason}", line.outcome));
    let task = line.task_id.as_deref().unwrap_or("-");
    let columns = format!(
        "{:<27}  {:>9}  {:<12}  {:<6}  {:<24}  {:<12}  {:<16}  {}",
        line.time,
        line.leaf_index,
        output::safe(&line.actor),
        output::safe(&line.lane),
        output::safe(line.what()),
        output::safe(&outcome),
        output::safe(task),
        output::safe(line.record_id.as_deref().or(line.detail.as_deref()).unwrap_or("-")),
    );
    columns.trim_end().to_owned()
}
