//! The sessions of those who have signed in. They are kept in memory: a restart ends them.

use crate::record::digest::{Hash, hex, sha256};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// A session ends this long after its start.
pub(crate) const SESSION_AGE_MAX: Duration = Duration::from_hours(12);
/// Sessions of one token. Another one ends the oldest.
const SESSIONS_PER_TOKEN_MAX: usize = 64;
const RANDOM_BYTES: usize = 32;

#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Whose it is. When the token is no longer listed, the session is void.
    pub(crate) token_sha256: Hash,
    /// What the session's forms carry.
    pub(crate) form_key: String,
    since: Instant,
}

/// All sessions, by the hash of their id: how long a search takes says nothing about the ids.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<Hash, Session>>);

impl Sessions {
    /// Starts a session, and returns its id. `None`: the system gives no randomness.
    pub(crate) fn start(&self, token_sha256: Hash) -> Option<String> {
        let (id, form_key) = (random()?, random()?);
        let session = Session { token_sha256, form_key, since: Instant::now() };
        let mut sessions = self.0.lock();
        sessions.retain(|_, session| session.since.elapsed() < SESSION_AGE_MAX);
        let of_token = sessions.iter().filter(|(_, session)| session.token_sha256 == token_sha256);
        if of_token.clone().count() >= SESSIONS_PER_TOKEN_MAX
            && let Some(oldest) = of_token.min_by_key(|(_, session)| session.since).map(|(key, _)| *key)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(sha256(id.as_bytes()), session);
        Some(id)
    }

    pub(crate) fn find(&self, id: &str) -> Option<Session> {
        let session = self.0.lock().get(&sha256(id.as_bytes())).cloned();
        session.filter(|session| session.since.elapsed() < SESSION_AGE_MAX)
    }

    pub(crate) fn end(&self, id: &str) {
        self.0.lock().remove(&sha256(id.as_bytes()));
    }
}

fn random() -> Option<String> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes).ok()?;
    Some(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_by_itself_and_when_it_is_told_to() {
        let sessions = Sessions::default();
        let ended = sessions.start(Hash::default()).expect("randomness");
        let id = sessions.start(Hash::default()).expect("randomness");
        assert!(ended != id && sessions.find(&ended).is_some());
        sessions.end(&ended);
        assert!(sessions.find(&ended).is_none() && sessions.find("").is_none());
        tokio::time::advance(SESSION_AGE_MAX / 2).await;
        assert!(sessions.find(&id).is_some());
        tokio::time::advance(SESSION_AGE_MAX / 2).await;
        assert!(sessions.find(&id).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_token_has_a_bounded_number_of_sessions_and_takes_none_of_another() {
        let sessions = Sessions::default();
        let of_another = sessions.start([1; 32]).expect("randomness");
        let mut ids = Vec::new();
        for _ in 0..SESSIONS_PER_TOKEN_MAX + 2 {
            tokio::time::advance(Duration::from_millis(1)).await;
            ids.push(sessions.start([2; 32]).expect("randomness"));
        }
        assert_eq!(sessions.0.lock().len(), SESSIONS_PER_TOKEN_MAX + 1);
        assert!(ids[..2].iter().all(|id| sessions.find(id).is_none()), "the oldest have ended");
        assert!(ids[2..].iter().all(|id| sessions.find(id).is_some()) && sessions.find(&of_another).is_some());
    }
}
