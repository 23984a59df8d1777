//! Puts a run of a check on record. A check is worth the same without that, so a login that may not write changes neither its
//! result nor its exit code.

use crate::command::output;
use crate::postgres::connections::Connections;
use crate::postgres::runs::{self, Run};

/// What a summary lists of each kind.
pub(crate) const LISTED_MAX: usize = 10;
/// Characters of each line in it.
const LINE_CHARS_MAX: usize = 300;

/// Puts the run on record, or says in one line why it is not.
pub(crate) async fn record(connections: &Connections, run: &Run) {
    if let Err(error) = runs::record(connections, run).await {
        output::complain(&format!("this run is not on record, and `ledgerd console` cannot show it: {error}"));
    }
}

/// The first lines of what was found, each cut to a bound.
pub(crate) fn first_lines<T: ToString>(findings: impl IntoIterator<Item = T>) -> Vec<String> {
    let shortened = |line: T| line.to_string().chars().take(LINE_CHARS_MAX).collect();
    findings.into_iter().take(LISTED_MAX).map(shortened).collect()
}
