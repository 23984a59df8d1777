//! Who tells the server that a held message is still being worked on? A lease does, until it is dropped.

use async_nats::{Client, Subject};
use bytes::Bytes;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

/// The server waits for `ack_wait`; it is told this many times within it, so that one lost word does no harm.
const WORDS_PER_ACK_WAIT: u32 = 3;

/// Extends the acknowledgement deadline of messages for as long as it lives.
#[derive(Debug)]
pub(super) struct Lease(JoinHandle<()>);

impl Lease {
    pub(super) fn new(client: Client, replies: Vec<Subject>, ack_wait: Duration) -> Self {
        let pace = ack_wait / WORDS_PER_ACK_WAIT;
        Self(tokio::spawn(async move {
            let mut ticks = interval(pace);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                for reply in &replies {
                    // While disconnected a publish may wait for ever. The deadline passes, and the message comes again.
                    let _ = timeout(pace, client.publish(reply.clone(), IN_PROGRESS)).await;
                }
            }
        }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.abort();
    }
}
