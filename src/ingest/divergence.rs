//! Finds the first sequence at which the stream and custody diverge, by binary search. A stream that was restored from
//! an older copy uses sequences again for other messages.

use crate::ingest::position::{Positions, SequenceMatch};
use crate::nats::api::{Api, ApiError};
use crate::record::message::{Incarnation, Message};

/// So many sequences that only one of the two has are passed over in the search for a common one.
const STEPS_MAX: usize = 64;

/// The stream and custody, to be compared.
#[derive(Debug)]
pub struct DivergenceSearch<'a, P> {
    pub api: &'a Api,
    pub positions: &'a P,
    pub incarnation: &'a Incarnation,
    /// The first sequence that the stream holds.
    pub first: i64,
}

impl<P: Positions> DivergenceSearch<'_, P> {
    /// The first sequence at which the stream holds another message than custody, if the highest common one up to `through`
    /// is another.
    ///
    /// # Errors
    /// A sentence that says which of the two does not answer.
    pub async fn divergence(&self, through: i64) -> Result<Option<i64>, String> {
        let Some(highest) = self.highest_common(through).await? else { return Ok(None) };
        if self.positions.compare(&highest).await? != SequenceMatch::Other {
            return Ok(None);
        }
        let mut divergence = highest.sequence;
        let (mut low, mut high) = (self.first, highest.sequence);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.next_common(middle, high).await? {
                Some((same, SequenceMatch::Same)) => low = same + 1,
                Some((other, _)) => {
                    divergence = other;
                    high = middle;
                }
                None => high = middle,
            }
        }
        Ok(Some(divergence))
    }

    async fn highest_common(&self, through: i64) -> Result<Option<Message>, String> {
        let mut through = through;
        for _ in 0..STEPS_MAX {
            let Some(sequence) = self.positions.highest(self.incarnation, through).await? else { return Ok(None) };
            if sequence < self.first {
                return Ok(None);
            }
            if let Some(message) = self.api.message_at(self.incarnation, sequence).await.map_err(text)? {
                return Ok(Some(message));
            }
            through = sequence - 1;
        }
        Ok(None)
    }

    /// The first message in a range of which custody has something, and whether it is that message.
    async fn next_common(&self, first: i64, end: i64) -> Result<Option<(i64, SequenceMatch)>, String> {
        let mut next = first;
        for _ in 0..STEPS_MAX {
            let message = match self.api.next_message_of_any(self.incarnation, next).await {
                Ok(message) if message.sequence < end => message,
                Ok(_) | Err(ApiError::MessageNotFound) => return Ok(None),
                Err(error) => return Err(text(error)),
            };
            match self.positions.compare(&message).await? {
                SequenceMatch::Nothing => next = message.sequence + 1,
                compared => return Ok(Some((message.sequence, compared))),
            }
        }
        Ok(None)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn text(error: ApiError) -> String {
    error.to_string()
}
