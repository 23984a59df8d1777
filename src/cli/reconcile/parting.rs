//! Does the stream still hold what custody has of it? A stream that was restored from an older copy uses sequences again for
//! other messages, and where it parted from custody is found by halving.

use super::super::Failure;
use crate::domain::message::Message;
use crate::nats::api::{Api, ApiError};
use crate::nats::holdings::Holdings;
use crate::postgres::Connections;
use crate::postgres::held::{self, Held};

/// So many sequences that only one of the two has are passed over in the search for a common one.
const STEPS_MAX: usize = 64;

/// The stream and custody, to be compared.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    pub(super) api: &'a Api,
    pub(super) custody: &'a Connections,
    pub(super) holdings: &'a Holdings,
    /// The epochs of the stream's incarnation.
    pub(super) epochs: &'a [i32],
}

impl Comparison<'_> {
    /// The first sequence at which the stream holds another message than custody, if the highest common one up to `through`
    /// is another.
    pub(super) async fn parted_below(&self, through: i64) -> Result<Option<i64>, Failure> {
        let Some(highest) = self.highest_common(through).await? else { return Ok(None) };
        if held::compare(self.custody, self.epochs, &highest).await? != Held::Other {
            return Ok(None);
        }
        let mut parted = highest.sequence;
        let (mut low, mut high) = (self.holdings.first, highest.sequence);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.next_common(middle, high).await? {
                Some((same, Held::Same)) => low = same + 1,
                Some((other, _)) => {
                    parted = other;
                    high = middle;
                }
                None => high = middle,
            }
        }
        Ok(Some(parted))
    }

    async fn highest_common(&self, through: i64) -> Result<Option<Message>, Failure> {
        let mut through = through;
        for _ in 0..STEPS_MAX {
            let Some(sequence) = held::highest(self.custody, self.epochs, through).await? else { return Ok(None) };
            if sequence < self.holdings.first {
                return Ok(None);
            }
            if let Some(message) = self.api.message_at(&self.holdings.incarnation, sequence).await? {
                return Ok(Some(message));
            }
            through = sequence - 1;
        }
        Ok(None)
    }

    /// The first message in a range of which custody has something, and whether it is that message.
    async fn next_common(&self, first: i64, end: i64) -> Result<Option<(i64, Held)>, Failure> {
        let mut next = first;
        for _ in 0..STEPS_MAX {
            let message = match self.api.next_message_of_any(&self.holdings.incarnation, next).await {
                Ok(message) if message.sequence < end => message,
                Ok(_) | Err(ApiError::MessageNotFound) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            match held::compare(self.custody, self.epochs, &message).await? {
                Held::Nothing => next = message.sequence + 1,
                compared => return Ok(Some((message.sequence, compared))),
            }
        }
        Ok(None)
    }
}
