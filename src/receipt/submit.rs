//! Submits a record: publishes it with a request for a receipt, and waits for that receipt. If the receipt was missed,
//! it is read from the stream of receipts.

use crate::nats::api::{Api, sequence_of};
use crate::nats::publish::{Outgoing, PubAck, PublishError, confirmed, publish_and_read, publish_message};
use crate::record::digest::{hex, sha256};
use crate::record::receipt::{HEADER, Receipt, YES, own_id, subject_of};
use crate::record::subject::Subject;
use async_nats::HeaderMap;
use async_nats::connection::State;
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

#[derive(Clone, Debug)]
pub struct Submission {
    /// `ledger.<LANE>.<ACTOR>`.
    pub subject: String,
    /// What the stream recognises it by when it comes again; only its publisher may be able to guess it.
    pub message_id: Option<String>,
    /// Its bytes.
    pub payload: Bytes,
}

/// Where a record is that the stream has taken.
#[derive(Clone, Debug)]
pub enum Submitted {
    /// Committed: this is what became of it.
    Told(Receipt),
    /// In the stream, and not committed in time.
    Queued(PubAck),
}

/// A connection that listens for receipts.
#[derive(Debug)]
pub struct SubmitClient {
    api: Api,
    stream: String,
    /// Whether a confirmation is believed only once the stream was read.
    reads_back: bool,
    receipts_stream: String,
    board: Arc<Inflight>,
    listening: JoinHandle<()>,
}

/// A receipt that was missed is looked up this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const LOOK_TIME_MAX: Duration = Duration::from_millis(500);
const NO_MESSAGE: u16 = 404;

impl SubmitClient {
    /// Listens on these subjects from now on, for what it publishes to `stream`.
    ///
    /// # Errors
    /// A sentence, where the client has ended.
    pub async fn listen(api: Api, stream: &str, receipts_stream: &str, subjects: &str) -> Result<Self, String> {
        let mut messages = api.client().subscribe(subjects.to_owned()).await.map_err(|error| error.to_string())?;
        let board = Arc::new(Inflight::default());
        let notes = board.clone();
        let listening = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                notes.arrived(&message.subject, &message.payload);
            }
        });
        let (stream, receipts_stream) = (stream.to_owned(), receipts_stream.to_owned());
        Ok(Self { api, stream, reads_back: false, receipts_stream, board, listening })
    }

    /// Reads each message in the stream before its confirmation is believed, which its login must be allowed to.
    #[must_use]
    pub fn reading_back(mut self) -> Self {
        self.reads_back = true;
        self
    }

    /// Whether the server is there at this moment. What is published while it is not waits in the client, for nobody knows how long.
    pub fn is_connected(&self) -> bool {
        self.api.client().connection_state() == State::Connected
    }

    /// Whether the client itself has ended, so that only a new one helps.
    pub fn has_ended(&self) -> bool {
        self.listening.is_finished()
    }

    /// Publishes, and waits for the receipt until the deadline.
    pub async fn submit(&self, submission: Submission, deadline: Instant) -> Result<Submitted, PublishError> {
        let Submission { subject, message_id, payload } = submission;
        let parsed = Subject::parse(&subject).expect("the caller publishes on a lane");
        // Its receipt would go by its sequence, which a stream that was made anew, or has lost its end, uses again.
        let is_nameless = message_id.is_none() && own_id(&payload, parsed.lane.table()).is_none();
        let message_id = if is_nameless { unguessable() } else { message_id };
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, YES);
        if let Some(id) = &message_id {
            headers.insert("Nats-Msg-Id", id.as_str());
        }
        let message = Outgoing { subject: subject.clone(), headers: Some(headers), payload: payload.clone() };
        let publishing = async {
            if self.reads_back {
                publish_and_read(&self.api, &self.stream, message).await
            } else {
                publish_message(&self.api, &self.stream, message).await
            }
        };
        let stored =
            timeout_at(deadline, publishing).await.map_or(Err(PublishError::Unknown), |it| confirmed(it, &subject))?;
        let sequence = sequence_of(stored.sequence);
        let place = Slot { subject: subject_of(parsed, &payload, message_id.as_deref(), sequence), sequence };

        // The receipt of the first copy stands no longer where somebody has published another since and asked. Without an id of its
        // own each copy is a record, and with one it may be a copy of other bytes, that were stored while these were rejected.
        let is_named = stored.duplicate && own_id(&payload, parsed.lane.table()).is_some();
        let copied = is_named.then(|| hex(&sha256(&payload)));

        let mut awaited = self.board.expect(place.clone());
        // What the stream had already was committed long ago, perhaps.
        let mut next_look = if stored.duplicate { Duration::ZERO } else { LOOK_INTERVAL };
        loop {
            tokio::select! {
                Ok(receipt) = &mut awaited.receiver => return Ok(Submitted::Told(receipt)),
                () = sleep(next_look) => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
            if let Some(receipt) = self.look(&place, copied.as_deref()).await {
                return Ok(Submitted::Told(receipt));
            }
            if Instant::now() >= deadline {
                return Ok(Submitted::Queued(stored));
            }
            next_look = LOOK_INTERVAL;
        }
    }

    /// The newest receipt on the subject, if it is of this message, or of a later copy of these bytes.
    async fn look(&self, place: &Slot, copied: Option<&str>) -> Option<Receipt> {
        let request = format!("$JS.API.DIRECT.GET.{}.{}", self.receipts_stream, place.subject);
        let asking = self.api.client().request(request, Bytes::new());
        let message = timeout(LOOK_TIME_MAX, asking).await.ok()?.ok()?;
        if message.status.is_some_and(|status| status.as_u16() == NO_MESSAGE) {
            return None;
        }
        Receipt::parse(&message.payload, &place.subject).filter(|receipt| place.is_told_by(receipt, copied))
    }
}

/// A name that nobody has used, nor can use first.
fn unguessable() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(hex(&bytes))
}

impl Drop for SubmitClient {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Which receipt: a later one on the same subject is of another message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Slot {
    subject: String,
    sequence: i64,
}

impl Slot {
    /// Whether a receipt on this subject says what became of the message; of one whose bytes have this hash, a later copy's does.
    fn is_told_by(&self, receipt: &Receipt, copied: Option<&str>) -> bool {
        receipt.sequence == self.sequence
            || receipt.sequence > self.sequence && copied.is_some_and(|sha256| receipt.says_stored(sha256))
    }
}

/// Receipts that arrived, and who waits for which.
#[derive(Debug, Default)]
struct Inflight {
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    expected: HashMap<Slot, Vec<oneshot::Sender<Receipt>>>,
    /// A receipt may overtake the server's answer to its publisher.
    recent: VecDeque<(Instant, Receipt)>,
}

const RECENT_MAX: usize = 4096;
const RECENT_AGE_MAX: Duration = Duration::from_secs(10);

impl Inflight {
    fn arrived(&self, subject: &str, payload: &[u8]) {
        let Some(receipt) = Receipt::parse(payload, subject) else { return };
        let place = Slot { subject: receipt.subject.clone(), sequence: receipt.sequence };
        let mut notes = self.lock();
        for waiting in notes.expected.remove(&place).into_iter().flatten() {
            let _ = waiting.send(receipt.clone());
        }
        let now = Instant::now();
        notes.recent.push_back((now, receipt));
        let too_many = notes.recent.len().saturating_sub(RECENT_MAX);
        let too_old = notes.recent.iter().take_while(|(at, _)| now - *at > RECENT_AGE_MAX).count();
        notes.recent.drain(..too_many.max(too_old));
    }

    fn expect(self: &Arc<Self>, place: Slot) -> AwaitedReceipt {
        let (sender, receiver) = oneshot::channel();
        let mut notes = self.lock();
        let is_it = |receipt: &Receipt| receipt.sequence == place.sequence && receipt.subject == place.subject;
        match notes.recent.iter().rev().find(|(_, receipt)| is_it(receipt)) {
            Some((_, receipt)) => {
                let _ = sender.send(receipt.clone());
            }
            None => notes.expected.entry(place.clone()).or_default().push(sender),
        }
        AwaitedReceipt { receiver, place, board: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock()
    }
}

/// Waits for one receipt. Dropped, it leaves nothing behind.
struct AwaitedReceipt {
    receiver: oneshot::Receiver<Receipt>,
    place: Slot,
    board: Arc<Inflight>,
}

impl Drop for AwaitedReceipt {
    fn drop(&mut self) {
        self.receiver.close();
        let mut notes = self.board.lock();
        if let Some(waiting) = notes.expected.get_mut(&self.place) {
            waiting.retain(|sender| !sender.is_closed());
            if waiting.is_empty() {
                notes.expected.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::receipt::Status;

    fn receipt(subject: &str, sequence: i64) -> Receipt {
        Receipt {
            status: Status::Logged,
            event_id: None,
            integrity_hash: None,
            leaf_hash: String::new(),
            leaf_index: 0,
            payload_sha256: None,
            committed_at: String::new(),
            reason: None,
            detail: None,
            stream: "LEDGER".into(),
            sequence,
            subject: subject.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_receipt_finds_who_waits_whether_it_comes_before_or_after() {
        let board = Arc::new(Inflight::default());
        let place = |sequence| Slot { subject: "receipt.A.x".into(), sequence };
        let later = [board.expect(place(2)), board.expect(place(2))];
        let never = board.expect(place(3));
        for sequence in [1, 2] {
            board.arrived("receipt.A.x", &receipt("receipt.A.x", sequence).to_bytes());
        }
        let mut before = board.expect(place(1));
        assert_eq!((&mut before.receiver).await.map(|it| it.sequence), Ok(1));
        for mut later in later {
            assert_eq!((&mut later.receiver).await.map(|it| it.sequence), Ok(2));
        }
        drop((never, before));
        assert!(board.lock().expected.is_empty());
    }

    #[test]
    fn a_later_copy_tells_of_an_earlier_one_if_it_is_stored_and_has_its_bytes() {
        let place = Slot { subject: "receipt.A.x".into(), sequence: 10 };
        let told = |status, sequence, bytes: Option<&str>, copied| {
            let payload_sha256 = bytes.map(str::to_owned);
            place.is_told_by(&Receipt { status, payload_sha256, ..receipt("receipt.A.x", sequence) }, copied)
        };
        for status in [Status::Logged, Status::Duplicate] {
            assert!(told(status, 11, Some("aa"), Some("aa")));
            assert!(!told(status, 11, Some("bb"), Some("aa")), "other bytes");
            assert!(!told(status, 11, None, Some("aa")), "an earlier version's");
            assert!(!told(status, 11, Some("aa"), None), "each copy is a record");
            assert!(!told(status, 9, Some("aa"), Some("aa")), "an earlier message");
        }
        assert!(!told(Status::Rejected, 11, Some("aa"), Some("aa")));
        assert!(told(Status::Rejected, 10, Some("bb"), Some("aa")), "its own is its own");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let board = Inflight::default();
        for sequence in 0..5000 {
            board.arrived("receipt.A.x", &receipt("receipt.A.x", sequence).to_bytes());
        }
        assert_eq!(board.lock().recent.len(), RECENT_MAX);
        tokio::time::advance(RECENT_AGE_MAX * 2).await;
        board.arrived("receipt.A.x", &receipt("receipt.A.x", 1).to_bytes());
        assert_eq!(board.lock().recent.len(), 1);
    }
}
