//! Parses a subject, `ledger.<LANE>.<ACTOR>`, into its lane and its actor.

use crate::record::reject::{Reason, Rejection, quote};
use std::fmt;
use std::str::FromStr;
use strum::{IntoStaticStr, VariantArray};

/// The event prefixes of LDG-002, and one lane for each of the other tables. Each has a durable consumer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "UPPERCASE", const_into_str)]
pub enum Lane {
    /// Execution events (Brom).
    Exec,
    /// Council vote events (Roxy).
    Vote,
    /// Proposal events (Sorin).
    Prop,
    /// Economic clearance events (Vera).
    Clr,
    /// Security events (any agent).
    Sec,
    Tool,
    /// System events (n8n, watchdog).
    Sys,
    Route,
    /// Corpus events (Astra).
    Corp,
    /// n8n workflow events.
    N8n,
    Err,
    Tokens,
    /// Council votes and their outcomes.
    Trail,
    /// Limits, rates, revenue and cost.
    Metric,
    Usage,
}

/// The tables of the specification: each lane fills one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Table {
    /// LDG-002, table 1.
    AuditEvents,
    /// LDG-002, table 2.
    TokenLedger,
    /// LDG-002, table 3.
    DecisionTrails,
    /// LDG-002, table 4.
    EconomicMetrics,
    /// The document `tool_usage_ledger`.
    ToolUsageLedger,
}

impl Table {
    /// Every table, in the order of the specification.
    pub const ALL: &[Table] = Self::VARIANTS;

    /// Its name in the schema `public`.
    pub const fn name(self) -> &'static str {
        self.into_str()
    }
}

impl Lane {
    /// Every lane, in the order of the specification.
    pub const ALL: &[Lane] = Self::VARIANTS;

    /// The prefix: the lane's name in event ids, subjects and consumers.
    pub const fn prefix(self) -> &'static str {
        self.into_str()
    }

    /// The table that its records fill.
    pub const fn table(self) -> Table {
        match self {
            Lane::Tokens => Table::TokenLedger,
            Lane::Trail => Table::DecisionTrails,
            Lane::Metric => Table::EconomicMetrics,
            Lane::Usage => Table::ToolUsageLedger,
            _ => Table::AuditEvents,
        }
    }

    /// The lane whose records those of this one refer to: a usage is priced at rates that were published before it.
    pub const fn refers_to(self) -> Option<Lane> {
        match self {
            Lane::Tokens => Some(Lane::Metric),
            _ => None,
        }
    }

    /// The subject filter of the lane's consumer.
    pub fn filter(self) -> String {
        format!("ledger.{}.*", self.prefix())
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.prefix())
    }
}

/// The text is none of the lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLane(String);

impl fmt::Display for UnknownLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known: Vec<_> = Lane::ALL.iter().map(|lane| lane.prefix()).collect();
        write!(f, "\"{}\" is not a lane; the lanes are {}", self.0, known.join(" "))
    }
}

impl std::error::Error for UnknownLane {}

impl FromStr for Lane {
    type Err = UnknownLane;

    fn from_str(text: &str) -> Result<Self, UnknownLane> {
        Lane::ALL.iter().copied().find(|lane| lane.prefix() == text).ok_or_else(|| UnknownLane(text.to_owned()))
    }
}

/// A subject of the stream, taken apart. The actor is what the server's permissions let the publisher say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    pub lane: Lane,
    pub actor: &'a str,
}

impl<'a> Subject<'a> {
    /// `None` for a subject that no lane has: the stream's own subjects admit none.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (lane, actor) = text.strip_prefix("ledger.")?.split_once('.')?;
        let lane = lane.parse().ok()?;
        (!actor.is_empty() && !actor.contains('.')).then_some(Self { lane, actor })
    }

    /// Passes the actor that the subject names: the server's permissions bind the subject, and this the payload.
    pub(crate) fn admit(&self, field: &str, actor: &str) -> Result<(), Rejection> {
        if actor == self.actor {
            return Ok(());
        }
        Err(Rejection::new(
            Reason::ActorMismatch,
            &format!("{field} {} is not {}, the last token of the subject", quote(actor), quote(self.actor)),
        ))
    }
}

/// The lane that any text names as a subject, as custody files it: the second token, or nothing.
pub fn lane_of(subject: &str) -> &str {
    subject.split('.').nth(1).unwrap_or_default()
}

/// The longest token that is put into a subject of the daemon's own: an actor's.
const TOKEN_CHARS_MAX: usize = crate::record::lengths::ACTOR_CHARS_MAX;

/// A publisher's text as one harmless subject token: letters, digits, `-` and `_` stay, anything else becomes `_`.
pub fn safe_token(text: &str) -> String {
    let token: String = text
        .chars()
        .take(TOKEN_CHARS_MAX)
        .map(
            |character| {
                if character.is_ascii_alphanumeric() || matches!(character, '-' | '_') { character } else { '_' }
            },
        )
        .collect();
    if token.is_empty() { "_".to_owned() } else { token }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_its_lane_and_its_actor() {
        let subject = Subject::parse("ledger.EXEC.BRM-CTO").expect("a subject");
        assert_eq!((subject.lane, subject.actor), (Lane::Exec, "BRM-CTO"));
        for other in
            ["ledger.EXEC", "ledger.EXEC.", "ledger.exec.A", "ledger.>.A", "ledger.EXEC.A.B", "dlq.ledger.EXEC.A", ""]
        {
            assert_eq!(Subject::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_token_can_never_be_a_wildcard_or_a_second_token() {
        for (text, token) in
            [(">", "_"), ("*", "_"), ("a.b", "a_b"), ("$SYS", "_SYS"), ("", "_"), ("WRK-006", "WRK-006"), ("é", "_")]
        {
            assert_eq!(safe_token(text), token);
        }
        assert_eq!(safe_token(&"x".repeat(900)).len(), TOKEN_CHARS_MAX);
    }
}
