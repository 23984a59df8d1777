//! Live lines: one task reads what was committed, however many visitors watch, and each gets what passes its filter.

use crate::console::fault::Fault;
use crate::query::Reader;
use crate::query::timeline::{Tail, TimelineLine, TimelineQuestion};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

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

/// From which leaf on a stream begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct LiveStart {
    /// The first leaf to be told; without it, what is committed from now on.
    from: Option<i64>,
}

impl LiveStart {
    /// The leaf to begin with. A browser that connects again names the last line that it had.
    pub(crate) fn leaf(&self, headers: &HeaderMap) -> Option<i64> {
        let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse::<i64>().ok());
        last.map(|leaf| leaf.saturating_add(1)).or(self.from)
    }
}

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

    /// Looks at the log's end, and reads what is new there if anybody watches. A database that does not answer is asked again at the next look.
    pub(crate) async fn run(&self, reader: &Reader) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tail: Option<Tail> = None;
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = self.stop.cancelled() => return,
            }
            // Whoever comes after this look is told what is committed after it.
            let from = match tail {
                Some(from) if self.looks.receiver_count() > 0 => from,
                _ => {
                    tail = reader.tail().await.ok();
                    continue;
                }
            };
            if let Ok(page) = reader.newest_since(from, ENTRIES_MAX).await {
                tail = Some(page.tail);
                if !page.lines.is_empty() {
                    let _ = self.looks.send(Arc::new(Look { lines: page.lines, skipped: page.skipped }));
                }
            }
        }
    }

    /// A stream of what is committed and passes a filter: from a leaf on, or from now on. `told` says how a line is written.
    pub(crate) async fn stream(
        &self,
        reader: &Reader,
        question: TimelineQuestion,
        from: Option<i64>,
        told: fn(&TimelineLine) -> Event,
    ) -> Result<impl IntoResponse + use<>, Fault> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| Fault::TooManyStreams)?;
        // What is committed from here on comes by the looks, and what was before by this one.
        let looks = self.looks.subscribe();
        let from = match from {
            Some(leaf) => Tail::at(leaf),
            None => reader.tail().await?,
        };
        let page = reader.newest_since(from, ENTRIES_MAX).await?;
        let (missed, next_leaf) = (Look { lines: page.lines, skipped: page.skipped }, page.tail.size());
        let watching = Watching { looks, question, next_leaf, told, _place: place };
        let events = watching.events(&missed).take_until(self.stop.clone().cancelled_owned());
        Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
    }
}

/// One visitor who watches.
struct Watching {
    looks: Receiver<Arc<Look>>,
    question: TimelineQuestion,
    /// Lines before it were told.
    next_leaf: i64,
    told: fn(&TimelineLine) -> Event,
    _place: OwnedSemaphorePermit,
}

impl Watching {
    fn events(self, missed: &Look) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
        // Said at once, so that whoever waits for the answer has it.
        let mut begun = vec![Ok(Event::default().comment("the stream has begun"))];
        begun.extend(self.events_of(missed, 0));
        stream::iter(begun).chain(stream::unfold(self, Self::next).flat_map(stream::iter))
    }

    async fn next(mut self) -> Option<(Vec<Result<Event, Infallible>>, Self)> {
        let events = match self.looks.recv().await {
            Ok(look) => self.events_of(&look, self.next_leaf),
            Err(RecvError::Lagged(_)) => vec![Ok(missed())],
            Err(RecvError::Closed) => return None,
        };
        Some((events, self))
    }

    fn events_of(&self, look: &Look, next_leaf: i64) -> Vec<Result<Event, Infallible>> {
        let is_new = |line: &&TimelineLine| line.leaf_index >= next_leaf && self.question.admits(line);
        let missed = (look.skipped > 0).then(missed);
        missed.into_iter().chain(look.lines.iter().filter(is_new).map(self.told)).map(Ok).collect()
    }
}

/// More was committed than is told.
fn missed() -> Event {
    Event::default().event("missed").data("more lines were committed than are shown here")
}
