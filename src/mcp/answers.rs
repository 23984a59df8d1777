//! The answers of the tools, each within a bound of bytes: a model reads all of it.

use crate::query::record::LedgerEntry;
use crate::query::search::Found;
use crate::query::story::{Cost, Step, Story};
use crate::query::timeline::{TimelineLine, TimelinePage};
use schemars::JsonSchema;
use serde::Serialize;

/// An answer is not longer, as JSON.
pub(crate) const ANSWER_BYTES_MAX: usize = 48 * 1024;
/// Of a text that a publisher wrote, so much is shown.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Fields of a row that are shown.
const COLUMNS_MAX: usize = 40;
const HEADERS_MAX: usize = 20;

/// How long a value is as JSON.
pub(crate) fn bytes_of(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}

/// Lines of the timeline, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TimelinePart {
    pub(crate) lines: Vec<TimelineLine>,
    /// Pass it as `cursor` for the lines that follow; null where there are none.
    pub(crate) next: Option<String>,
    /// The search has come so far back and goes on with `next`.
    pub(crate) searched_back_to: Option<String>,
}

impl From<TimelinePage> for TimelinePart {
    fn from(TimelinePage { lines, next, searched_back_to }: TimelinePage) -> Self {
        Self { lines, next, searched_back_to }
    }
}

/// One entry, or what the id may mean.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct EntryAnswer {
    /// The entry; null where the id means several things, or something that is no single entry.
    pub(crate) record: Option<LedgerEntry>,
    /// What else the id may mean. Ask again with a `leaf_index`, or with the tool for a task.
    pub(crate) candidates: Vec<Found>,
    /// Texts were cut: a proof, or `ledgerd dlq show`, has them whole.
    pub(crate) is_cut: bool,
}

/// A record whose texts fit, and whether something was cut.
pub(crate) fn fitted(mut record: LedgerEntry) -> (LedgerEntry, bool) {
    let mut is_cut = false;
    for text in record.published.payload.iter_mut().chain(&mut record.published.unparsed_headers) {
        is_cut |= cut(text, TEXT_BYTES_MAX);
    }
    is_cut |= record.published.headers.len() > HEADERS_MAX;
    record.published.headers.truncate(HEADERS_MAX);
    for header in &mut record.published.headers {
        is_cut |= cut(&mut header.value, TEXT_BYTES_MAX / HEADERS_MAX);
        is_cut |= cut(&mut header.name, TEXT_BYTES_MAX / HEADERS_MAX);
    }
    if let Some(row) = &mut record.row {
        row.columns.truncate(COLUMNS_MAX);
        for column in &mut row.columns {
            for text in column.value.iter_mut().chain(&mut column.difference) {
                is_cut |= cut(text, TEXT_BYTES_MAX / 4);
            }
        }
    }
    for difference in &mut record.differences {
        is_cut |= cut(&mut difference.says, TEXT_BYTES_MAX / 4);
    }
    while bytes_of(&record) > ANSWER_BYTES_MAX && record.differences.pop().is_some() {
        is_cut = true;
    }
    (record, is_cut)
}

/// Cuts a text after so many bytes, at the end of a character.
fn cut(text: &mut String, bytes_max: usize) -> bool {
    if text.len() <= bytes_max {
        return false;
    }
    text.truncate(text.floor_char_boundary(bytes_max));
    text.push('…');
    true
}

/// The story of a task or a proposal, or a part of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StoryAnswer {
    /// The tasks that it spans.
    pub(crate) tasks: Vec<String>,
    /// The proposals that it speaks of.
    pub(crate) proposals: Vec<String>,
    /// The oldest first.
    pub(crate) steps: Vec<Step>,
    /// How many steps the whole story has.
    pub(crate) steps_total: usize,
    pub(crate) cost: Cost,
    /// References to events that are not there.
    pub(crate) dangling_references: usize,
    /// The story is longer than is kept together: `search_events` with the task has the rest.
    pub(crate) is_cut: bool,
    /// Pass it as `cursor` for the steps that follow; null where there are none.
    pub(crate) next: Option<String>,
}

/// The steps from this one on, as many as fit.
pub(crate) fn part_of(story: Story, from: usize) -> StoryAnswer {
    let steps_total = story.steps.len();
    let (mut steps, mut bytes) = (Vec::new(), 0);
    for step in story.steps.into_iter().skip(from) {
        bytes += bytes_of(&step);
        if bytes > ANSWER_BYTES_MAX && !steps.is_empty() {
            break;
        }
        steps.push(step);
    }
    let end = from + steps.len();
    StoryAnswer {
        tasks: story.tasks,
        proposals: story.proposals,
        steps,
        steps_total,
        cost: story.cost,
        dangling_references: story.dangling,
        is_cut: story.is_cut,
        next: (end < steps_total).then(|| end.to_string()),
    }
}

/// The proof of one entry.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ProofAnswer {
    pub(crate) leaf_index: u64,
    /// The log that it is in.
    pub(crate) origin: String,
    /// The size of the tree that was signed.
    pub(crate) tree_size: u64,
    /// The file, in the format c2sp.org/tlog-proof@v1. `ledgerd verify-proof FILE --key VKEY` checks it without the ledger.
    pub(crate) tlog_proof: String,
}

/// The ledger in numbers.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StatusAnswer {
    /// Entries of the log: every message that was taken.
    pub(crate) entries: i64,
    /// The root of the tree over them, in hexadecimal.
    pub(crate) root: String,
    pub(crate) recorded: i64,
    pub(crate) duplicates: i64,
    pub(crate) rejected: i64,
    /// Rejects that have not reached the dead-letter stream yet.
    pub(crate) unpublished_rejects: i64,
    /// When the newest message was committed, in UTC.
    pub(crate) last_commit: Option<String>,
    /// The log's name, and the size of the tree that was signed last. Null where nothing was ever signed.
    pub(crate) checkpoint: Option<CheckpointAnswer>,
}

/// The newest signed checkpoint.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct CheckpointAnswer {
    pub(crate) origin: String,
    pub(crate) tree_size: u64,
    /// Who signed it: the log, and its witnesses.
    pub(crate) signed_by: Vec<String>,
}
