//! Parses a subject, `ledger.<LANE>.<ACTOR>`, into its lane and its actor.

use crate::record::lane::Lane;
use crate::record::reject::{Reason, Rejection, quote};

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
