//! What was published, message by message: the other half of the check.

use super::events::{Expectation, Outgoing};
use super::publisher::Publisher;
use async_nats::HeaderMap;
use bytes::Bytes;

/// The header that keeps a message from being stored twice.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// The headers of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Headers {
    None,
    /// Sorted by name.
    Pairs(Vec<(String, String)>),
    /// A block that no library can parse.
    Raw(Vec<u8>),
}

/// A message that a stream has acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    /// Which of the streams, counted from 0: each time it is made anew, sequences begin again.
    pub(crate) epoch: usize,
    pub(crate) sequence: u64,
    pub(crate) headers: Headers,
    pub(crate) outgoing: Outgoing,
}

/// Every message that a test has published to the stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    epoch: usize,
    publications: Vec<Publication>,
}

impl Published {
    /// Publishes, and waits for the acknowledgement.
    pub(crate) async fn publish(&mut self, publisher: &Publisher, outgoing: Outgoing) -> u64 {
        let sequence = publisher.publish(&outgoing.subject, outgoing.payload.clone()).await;
        self.note(sequence, Headers::None, outgoing)
    }

    /// Publishes many quickly, in this order.
    pub(crate) async fn publish_all(&mut self, publisher: &Publisher, outgoing: Vec<Outgoing>) {
        let messages = outgoing.iter().map(|it| (it.subject.clone(), Bytes::from(it.payload.clone()))).collect();
        for (sequence, outgoing) in publisher.publish_all(messages).await.into_iter().zip(outgoing) {
            self.note(sequence, Headers::None, outgoing);
        }
    }

    /// Publishes with these headers.
    pub(crate) async fn publish_with_headers(
        &mut self,
        publisher: &Publisher,
        pairs: &[(&str, &str)],
        outgoing: Outgoing,
    ) -> u64 {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, *value);
        }
        let sequence = publisher.publish_with_headers(&outgoing.subject, map, outgoing.payload.clone()).await;
        let mut pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.note(sequence, Headers::Pairs(pairs), outgoing)
    }

    /// Publishes with a header block that no library can parse.
    pub(crate) async fn publish_raw(&mut self, publisher: &Publisher, block: &[u8], outgoing: Outgoing) -> u64 {
        let sequence = publisher.publish_raw(&outgoing.subject, block, &outgoing.payload).await;
        self.note(sequence, Headers::Raw(block.to_vec()), outgoing)
    }

    /// Publishes once, however often the server goes away meanwhile. `id` must be the message's own.
    pub(crate) async fn publish_through_outages(&mut self, publisher: &Publisher, id: &str, outgoing: Outgoing) -> u64 {
        let sequence = publisher.publish_through_outages(&outgoing.subject, id, outgoing.payload.clone()).await;
        self.note(sequence, Headers::Pairs(vec![(MESSAGE_ID.to_owned(), id.to_owned())]), outgoing)
    }

    /// Notes what was published by other means.
    pub(crate) fn note(&mut self, sequence: u64, headers: Headers, outgoing: Outgoing) -> u64 {
        self.publications.push(Publication { epoch: self.epoch, sequence, headers, outgoing });
        sequence
    }

    /// What comes from now on is in a stream that was deleted and made anew.
    pub(crate) fn stream_was_made_anew(&mut self) {
        self.epoch += 1;
    }

    pub(crate) fn all(&self) -> &[Publication] {
        &self.publications
    }

    /// Takes over what another task has published to the same streams.
    pub(crate) fn merge(&mut self, other: Published) {
        self.epoch = self.epoch.max(other.epoch);
        self.publications.extend(other.publications);
    }

    /// How many are to become dead letters.
    pub(crate) fn bad(&self) -> usize {
        self.publications.iter().filter(|it| matches!(it.outgoing.expectation, Expectation::Bad(_))).count()
    }
}

impl Headers {
    /// As custody keeps them: `Name: value` lines in the order of the names, or the block itself.
    pub(crate) fn in_custody(&self) -> Option<Vec<u8>> {
        match self {
            Headers::None => None,
            Headers::Pairs(pairs) => {
                Some(pairs.iter().flat_map(|(name, value)| format!("{name}: {value}\r\n").into_bytes()).collect())
            }
            Headers::Raw(block) => Some(block.clone()),
        }
    }
}
