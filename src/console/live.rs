//! Live lines: one task reads what was committed, however many visitors watch, and each gets what passes its filter.

use crate::console::fault::Fault;
use crate::console::site::Shared;
use crate::query::timeline::{Tail, TimelineLine, TimelineQuestion};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt as _};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Streams at a time. Fewer than the connections that one address may hold, so that pages are answered beside them.
const STREAMS_MAX: usize = 200;
/// How often the log's end is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Entries that are told of one look; of more, the newest.
const ENTRIES_MAX: u16 = 200;
/// Looks that a slow reader may be behind before it misses some.
const LOOKS_MAX: usize = 8;
/// The listener ends a connection that is silent for longer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What one look has found.
#[derive(Debug)]
struct Look {
    lines: Vec<TimelineLine>,
    /// Entries that were left out.
    skipped: i64,
}

/// Tells watchers what is committed.
#[derive(Debug)]
pub(crate) struct Live {
    looks: Sender<Arc<Look>>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Live {
    /// Streams end when told to stop.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { looks: broadcast::channel(LOOKS_MAX).0, places: Arc::new(Semaphore::new(STREAMS_MAX)), stop }
    }

    /// Looks at the log's end as long as anybody watches. A database that does not answer is asked again at the next look.
    pub(crate) async fn run(site: Shared) {
        let live = &site.live;
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tail: Option<Tail> = None;
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = live.stop.cancelled() => return,
            }
            if live.looks.receiver_count() == 0 {
                tail = None;
                continue;
            }
            let Some(from) = tail else {
                tail = site.reader.tail().await.ok();
                continue;
            };
            if let Ok(page) = site.reader.newest_since(from, ENTRIES_MAX).await {
                tail = Some(page.tail);
                if !page.lines.is_empty() {
                    let _ = live.looks.send(Arc::new(Look { lines: page.lines, skipped: page.skipped }));
                }
            }
        }
    }

    /// A stream of what is committed from now on and passes a filter; `told` says how a line is written.
    pub(crate) fn stream(
        &self,
        question: TimelineQuestion,
        told: fn(&TimelineLine) -> Event,
    ) -> Result<impl IntoResponse + use<>, Fault> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| Fault::TooManyStreams)?;
        let watching = Watching { looks: self.looks.subscribe(), question, told, _place: place };
        let events = watching.events().take_until(self.stop.clone().cancelled_owned());
        Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
    }
}

/// One visitor who watches.
struct Watching {
    looks: Receiver<Arc<Look>>,
    question: TimelineQuestion,
    told: fn(&TimelineLine) -> Event,
    _place: OwnedSemaphorePermit,
}

impl Watching {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        // Said at once, so that whoever waits for the answer has it.
        let begun = stream::iter([Ok(Event::default().comment("from now on"))]);
        begun.chain(stream::unfold(self, Self::next).flat_map(stream::iter))
    }

    async fn next(mut self) -> Option<(Vec<Result<Event, Infallible>>, Self)> {
        let events = match self.looks.recv().await {
            Ok(look) => {
                let admitted = look.lines.iter().filter(|line| self.question.admits(line));
                let missed = (look.skipped > 0).then(missed);
                missed.into_iter().chain(admitted.map(self.told)).map(Ok).collect()
            }
            Err(RecvError::Lagged(_)) => vec![Ok(missed())],
            Err(RecvError::Closed) => return None,
        };
        Some((events, self))
    }
}

/// More was committed than is told.
fn missed() -> Event {
    Event::default().event("missed").data("more lines were committed than are shown here")
}
