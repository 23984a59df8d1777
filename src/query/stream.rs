//! The message server as the console sees it: asked where its address is known, at a bounded rate, and never waited for.

use crate::command::connect;
use crate::config::Config;
use crate::nats::api::Api;
use crate::nats::client::Link;
use crate::nats::definitions::Names;
use crate::query::lanes::{self, LaneInStream, LaneState};
use crate::record::lane::Lane;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// A page is given without the stream's part after this time.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(1500);
/// An answer is good for so long.
const FRESH_FOR: Duration = Duration::from_secs(2);
/// A server that did not answer is left alone for so long.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(5);

/// The way to the stream.
#[derive(Debug)]
pub(crate) struct StreamView {
    link: Option<Link>,
    names: Names,
    lanes: Vec<Lane>,
    seen: Mutex<Seen>,
}

/// What the stream said of each lane, or why it said nothing.
type Asked = Result<Vec<Option<LaneInStream>>, String>;

#[derive(Debug, Default)]
struct Seen {
    api: Option<Api>,
    last: Option<(Instant, Asked)>,
}

/// Whether the stream has told something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamAnswer {
    Told,
    /// `nats.url` is not set.
    NotConfigured,
    /// It does not answer, or refuses to, for this reason.
    Silent(String),
}

impl StreamView {
    /// Connects to nothing yet.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            link: connect::nats_settings(&config.nats).ok().map(Link::new),
            names: Names::from(&config.nats),
            lanes: config.lanes.clone(),
            seen: Mutex::default(),
        }
    }

    /// Adds what the stream says to what the database says of the same lanes.
    pub(crate) async fn tell(&self, known: &mut [LaneState]) -> StreamAnswer {
        let Some(link) = &self.link else { return StreamAnswer::NotConfigured };
        // Whoever comes meanwhile gets the same answer.
        let mut seen = self.seen.lock().await;
        let good_for = |last: &Asked| if last.is_ok() { FRESH_FOR } else { LEFT_ALONE_FOR };
        if seen.last.as_ref().is_none_or(|(at, last)| at.elapsed() > good_for(last)) {
            let asking = self.ask(link, &mut seen.api, known);
            let asked = timeout(ANSWER_TIME_MAX, asking).await;
            let asked = asked.unwrap_or_else(|_| Err("it does not answer".to_owned()));
            if asked.is_err() {
                seen.api = None;
            }
            seen.last = Some((Instant::now(), asked));
        }
        match &seen.last {
            Some((_, Ok(lanes))) => {
                known.iter_mut().zip(lanes).for_each(|(state, stream)| state.stream.clone_from(stream));
                StreamAnswer::Told
            }
            Some((_, Err(why))) => StreamAnswer::Silent(why.clone()),
            None => StreamAnswer::NotConfigured,
        }
    }

    async fn ask(&self, link: &Link, known_api: &mut Option<Api>, known: &[LaneState]) -> Asked {
        let api = if let Some(api) = known_api {
            api.clone()
        } else {
            let connection = link.connect(None).await.map_err(|error| error.to_string())?;
            known_api.insert(Api::new(&connection)).clone()
        };
        let mut known = known.to_vec();
        let asked = lanes::ask(&api, &self.names, &self.lanes, &mut known).await;
        asked.map_err(|error| error.to_string())?;
        Ok(known.into_iter().map(|state| state.stream).collect())
    }
}
