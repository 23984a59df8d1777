//! A witness (c2sp.org/tlog-witness): cosigns the checkpoints of known logs, as long as each tree extends the previous
//! one. It stores the last checkpoint of each log before it answers.

use crate::state::{BadState, WitnessMemory};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tlog::checkpoint::{Log, Origin, SignedCheckpoint};
use tlog::cosignature::{Timestamp, WitnessSignerKey};
use tlog::note;
use tlog::witness::{Accepted, AddCheckpoint, Authentic, CosignRefusal, STALE_CONTENT_TYPE};

#[derive(Debug)]
pub(crate) struct Witness {
    key: WitnessSignerKey,
    logs: Vec<Log>,
    state: WitnessMemory,
    /// One request at a time for each log: between the look at its state and the storing, nobody else does either.
    turns: BTreeMap<Origin, Mutex<()>>,
}

/// An answer over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

impl Answer {
    fn text(status: u16, what: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{what}\n") }
    }
}

/// Reads `VKEY` or `VKEY=ORIGIN`: a log's verifier key, and the origin of its checkpoints where that is not the key's name.
pub(crate) fn parse_log(text: &str) -> Result<(Origin, note::VerifierKey), String> {
    // Neither a name nor an id has a plus sign in it, and the base64 of 33 bytes no equals sign.
    let typed = text.match_indices('+').nth(1).map_or(0, |(plus, _)| plus);
    let end = text[typed..].find('=').map_or(text.len(), |equals| typed + equals);
    let key = note::VerifierKey::parse(&text[..end]).map_err(|error| error.to_string())?;
    let origin = match text[end..].strip_prefix('=') {
        Some(origin) => Origin::parse(origin).map_err(|error| error.to_string())?,
        None => Origin::from(key.name()),
    };
    Ok((origin, key))
}

impl Witness {
    /// A witness of these logs, with its state in a folder that exists. A log may have several keys.
    pub(crate) fn open(
        key: WitnessSignerKey,
        known: Vec<(Origin, note::VerifierKey)>,
        folder: &Path,
    ) -> Result<Self, BadState> {
        let mut keys: BTreeMap<Origin, Vec<note::VerifierKey>> = BTreeMap::new();
        for (origin, key) in known {
            let keys = keys.entry(origin).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let logs: Vec<Log> = keys.into_iter().map(|(origin, keys)| Log::new(origin, keys)).collect();
        let state = WitnessMemory::open(folder)?;
        for log in &logs {
            let origin = log.origin();
            if let Some(checkpoint) = state.latest(log)? {
                tracing::info!(%origin, size = checkpoint.head().size, "remembers a log");
            } else {
                tracing::warn!(%origin, "knows nothing of this log yet: it will believe its first checkpoint");
            }
        }
        let turns = logs.iter().map(|log| (log.origin().clone(), Mutex::new(()))).collect();
        Ok(Self { key, logs, state, turns })
    }

    /// Its public key, by which others know it.
    pub(crate) fn verifier_key(&self) -> String {
        self.key.verifier().to_string()
    }

    /// Answers `add-checkpoint`. It writes to the disk, and waits for its turn.
    pub(crate) fn add_checkpoint(&self, body: &[u8], since_1970: Duration) -> Answer {
        let request = match AddCheckpoint::parse(body) {
            Ok(request) => request,
            Err(error) => {
                tracing::warn!("refused a request: {error}");
                return Answer::text(400, &error.to_string());
            }
        };
        match request.authenticate(&self.logs) {
            Ok(authentic) => {
                let origin = authentic.origin().clone();
                let known = self.logs.iter().find(|log| *log.origin() == origin).zip(self.turns.get(&origin));
                let (log, turn) = known.expect("an authentic checkpoint is of a known log");
                let _turn = turn.lock();
                self.judge(authentic, log, since_1970)
            }
            Err(refusal) => refused(&refusal, None),
        }
    }

    /// The last checkpoint that was cosigned of the log whose origin has this hash, in small hexadecimal digits, with the
    /// cosignature of this moment: it is the largest that the witness has seen.
    pub(crate) fn newest(&self, origin_sha256: &str, since_1970: Duration) -> Answer {
        let is_it = |log: &&Log| log.origin().sha256_hex() == origin_sha256;
        let known = self.logs.iter().find(is_it).and_then(|log| Some((log, self.turns.get(log.origin())?)));
        let Some((log, turn)) = known else { return Answer::text(404, "no log of that origin is known") };
        let _turn = turn.lock();
        let (latest, at) = match (self.state.latest(log), Timestamp::from_posix_seconds(since_1970.as_secs())) {
            (Ok(Some(latest)), Some(at)) => (latest, at),
            (Ok(None), _) => return Answer::text(404, "no checkpoint of this log was cosigned yet"),
            (Err(error), _) => {
                tracing::error!(origin = %log.origin(), "cannot show the last checkpoint: {error}");
                return Answer::text(500, "the witness cannot read its state");
            }
            (_, None) => return Answer::text(500, "the witness does not know the time"),
        };
        let mut note = latest.note().clone();
        match note.add(Accepted::again(latest).cosign(&self.key, at)) {
            Ok(()) => Answer { status: 200, content_type: "text/plain; charset=utf-8", body: note.to_string() },
            Err(error) => Answer::text(500, &error.to_string()),
        }
    }

    fn judge(&self, authentic: Authentic, log: &Log, since_1970: Duration) -> Answer {
        let origin = log.origin();
        let latest = match self.state.latest(log) {
            Ok(latest) => latest,
            Err(error) => {
                tracing::error!(%origin, "cannot judge: {error}");
                return Answer::text(500, "the witness cannot read its state");
            }
        };
        let asked = authentic.checkpoint().without_strangers(log);
        let accepted = match authentic.judge(latest.as_ref().map(SignedCheckpoint::head)) {
            Ok(accepted) => accepted,
            // The log's own signature is below both. A bad proof shows nothing: it is the word of whoever asks, and anybody may.
            Err(refusal @ CosignRefusal::AnotherRoot { size }) => {
                let latest = latest.map(|checkpoint| checkpoint.to_string()).unwrap_or_default();
                tracing::error!(%origin, size, latest, %asked, "FORK: the log signed two trees of one size; both notes are the evidence");
                self.state.keep_evidence(origin, size, &latest, &asked.to_string());
                return refused(&refusal, Some(origin));
            }
            Err(refusal) => return refused(&refusal, Some(origin)),
        };
        let Some(at) = Timestamp::from_posix_seconds(since_1970.as_secs()) else {
            tracing::error!("the clock of this machine is not set: nothing is cosigned");
            return Answer::text(500, "the witness does not know the time");
        };
        // First the state, then the word: whatever happens in between, no older tree is ever cosigned after a newer one.
        if let Err(error) = self.state.store(log, accepted.checkpoint()) {
            tracing::error!(%origin, "nothing is cosigned, for the state cannot be written: {error}");
            return Answer::text(500, "the witness cannot write its state");
        }
        let size = accepted.checkpoint().head().size;
        tracing::info!(%origin, size, "cosigned");
        Answer {
            status: 200,
            content_type: "text/plain; charset=utf-8",
            body: accepted.cosign(&self.key, at).to_string(),
        }
    }
}

const REFUSAL_CHARS_LOGGED_MAX: usize = 300;

fn refused(refusal: &CosignRefusal, origin: Option<&Origin>) -> Answer {
    let status = refusal.status();
    if let CosignRefusal::Stale { size } = refusal {
        // It is how a log learns from where to prove.
        tracing::debug!(status, "refused: {refusal}");
        return Answer { status, content_type: STALE_CONTENT_TYPE, body: format!("{size}\n") };
    }
    let origin = origin.map(Origin::as_str).unwrap_or_default();
    // It may repeat what was sent, and anybody may send anything.
    let what: String = refusal.to_string().chars().take(REFUSAL_CHARS_LOGGED_MAX).collect();
    tracing::warn!(status, origin, "refused: {what}");
    Answer::text(status, &refusal.to_string())
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
