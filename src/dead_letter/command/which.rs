//! Selects the dead letters for a command: by their references, or by filters.

use crate::command::{moment, output};
use crate::dead_letter::command::{Exit, Failure};
use crate::dead_letter::queries as dead_letters;
use crate::dead_letter::queries::{Filter, Leaves, LetterSummary};
use crate::dead_letter::resolution::LetterState;
use crate::postgres::connections::Connections;
use crate::record::lane::Lane;
use crate::record::reject::Reason;
use crate::record::subject::safe_token;
use std::collections::VecDeque;

/// The filters that every command has.
#[derive(Debug, clap::Args)]
pub(crate) struct Filters {
    /// Only those with this reason, for example `unknown_action`
    #[arg(long, value_name = "CODE", value_parser = reason)]
    reason: Option<Reason>,
    /// Only those of this lane; UNKNOWN where the subject has none
    #[arg(long, value_parser = lane)]
    lane: Option<String>,
    /// Only those of this actor, the last token of the subject
    #[arg(long)]
    actor: Option<String>,
    /// Only those rejected at this moment or later (ISO 8601; UTC where it names no offset)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only those rejected before this moment
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

fn reason(text: &str) -> Result<Reason, String> {
    let known = || Reason::ALL.iter().map(|reason| reason.code()).collect::<Vec<_>>().join(" ");
    Reason::of_code(text).ok_or_else(|| format!("the reasons are {}", known()))
}

fn lane(text: &str) -> Result<String, String> {
    match text.parse::<Lane>() {
        Err(why) if text != "UNKNOWN" => Err(why.to_string()),
        _ => Ok(text.to_owned()),
    }
}

impl Filters {
    /// As the database is asked.
    pub(crate) fn filter(&self, states: Option<Vec<LetterState>>) -> Result<Filter, Failure> {
        Ok(Filter {
            reason: self.reason.map(|reason| reason.code().to_owned()),
            lane: self.lane.clone(),
            // As it stands in the dead letter's subject.
            actor: self.actor.as_deref().map(safe_token),
            since: self.since.as_deref().map(|text| moment::utc("since", text)).transpose()?,
            until: self.until.as_deref().map(|text| moment::utc("until", text)).transpose()?,
            states,
        })
    }
}

/// What something is to be done with.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// The dead letters, by their references as `list` prints them
    #[arg(
        value_name = "REF",
        conflicts_with_all = ["reason", "lane", "actor", "since", "until", "all_matching"]
    )]
    references: Vec<String>,
    #[command(flatten)]
    filters: Filters,
    /// All that nothing was decided about and that match the filters, the oldest first
    #[arg(long)]
    all_matching: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Letters that are looked up at a time.
const PAGE_MAX: i64 = 100;

/// A way through the letters that are meant. Those that are rejected while we go are not among them.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    connections: &'a Connections,
    filter: Filter,
    rest: Leaves,
    page: VecDeque<LetterSummary>,
}

impl Selection {
    /// Whether letters were named, one by one.
    pub(crate) fn names_letters(&self) -> bool {
        !self.references.is_empty()
    }

    /// The one letter that was named.
    pub(crate) fn names_one(&self) -> bool {
        self.references.len() == 1
    }

    /// Finds those that are named, or those in these states that match.
    pub(crate) async fn walk<'a>(
        &self,
        connections: &'a Connections,
        states: &[LetterState],
    ) -> Result<Walk<'a>, Failure> {
        let filter = self.filters.filter(Some(states.to_vec()))?;
        if self.names_letters() {
            let mut page = VecDeque::new();
            for reference in &self.references {
                page.push_back(find(connections, reference).await?);
            }
            return Ok(Walk { connections, filter, rest: Leaves { after: 0, up_to: 0 }, page });
        }
        let (count, rest) = dead_letters::extent(connections, &filter).await?;
        if !self.all_matching && !self.dry_run {
            let what =
                format!("{count} dead letters match: name some of them, or say --all-matching; --dry-run shows them");
            return Err(Failure::new(Exit::Usage, what));
        }
        Ok(Walk { connections, filter, rest, page: VecDeque::new() })
    }
}

impl Walk<'_> {
    /// The next letter.
    pub(crate) async fn next(&mut self) -> Result<Option<LetterSummary>, Failure> {
        if self.page.is_empty() && self.rest.after < self.rest.up_to {
            let page = dead_letters::oldest(self.connections, &self.filter, self.rest, PAGE_MAX).await?;
            self.rest.after = page.last().map_or(self.rest.up_to, |last| last.leaf_index);
            self.page = page.into();
        }
        Ok(self.page.pop_front())
    }
}

/// The dead letter with this reference.
pub(crate) async fn find(connections: &Connections, reference: &str) -> Result<LetterSummary, Failure> {
    let found = dead_letters::find(connections, reference).await?;
    found.ok_or_else(|| Failure::new(Exit::Failed, format!("there is no dead letter {}", output::safe(reference))))
}
