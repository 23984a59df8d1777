//! `ledgerd run`: the daemon. It connects to both servers, starts a pipeline for each lane, and stops on request.

mod completeness;
pub(crate) mod log_pages;
pub(crate) mod meet;
mod notify;
pub(crate) mod refusals;
mod reload;
pub(crate) mod webhooks;

use crate::budget::gate_subject::{self, Gate};
use crate::budget::status::Alert;
use crate::budget::stream::AlertStream;
use crate::command::{Exit, Failure, connect, rules};
use crate::config::{Config, NotifyTarget};
use crate::daemon::meet::Meeting;
use crate::dead_letter::stream::DeadLetterStream;
use crate::health::Health;
use crate::http::api_token::ApiTokens;
use crate::ingest::lane_reader::LaneReader;
use crate::ingest::pipeline::{self, LaneContext};
use crate::ingest::positions::LanePositions;
use crate::ingest::pull::PullLimits;
use crate::ingest::source::LaneSource;
use crate::ingest::store::Ledger;
use crate::log::anchor::Anchor;
use crate::log::announce::CheckpointSubject;
use crate::log::cosign::Witnesses;
use crate::log::queries::LogStore;
use crate::log::signer::{self, Pace, Released, SignerContext};
use crate::log::{http_client, witnesses};
use crate::metrics::{LaneMetrics, Metrics};
use crate::nats::api::Api;
use crate::nats::client::{Connection, Link};
use crate::nats::definitions::Names;
use crate::notify::store::NotifyStore;
use crate::outbox::queue::LetterQueue;
use crate::outbox::{self, Outbox};
use crate::receipt::notifier::Receipts;
use crate::receipt::queries::ReceiptQueries;
use crate::receipt::stream::ReceiptStream;
use crate::record::dead_letter::DeadLetter;
use crate::record::lane::Lane;
use crate::record::rules::Rules;
use crate::systemd::{self, Signal};
use crate::webhook::refusals::Refusals;
use crate::webhook::routes;
use crate::{http, telemetry};
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tlog::note::SignerKey;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

/// The daemon, as its tasks share it.
pub(crate) struct Daemon {
    pub(crate) config: Config,
    file: Option<PathBuf>,
    rules: watch::Sender<Arc<Rules>>,
    /// Whose webhooks are let in.
    pub(crate) tokens: watch::Sender<Arc<ApiTokens>>,
    /// Whom the webhooks refused.
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) ledger: Ledger,
    dead_letters: LetterQueue<DeadLetter>,
    alerts: LetterQueue<Alert>,
    /// What agents hear who ask before they spend.
    gate: Gate,
    /// Whom notifications go to.
    notify_targets: watch::Sender<Arc<Vec<NotifyTarget>>>,
    notify_store: NotifyStore,
    /// What publishers are told from.
    receipts: Arc<ReceiptQueries>,
    /// What the pages of the log are read from.
    pub(crate) log: Arc<LogStore>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lanes: Vec<(Lane, LaneMetrics)>,
    /// Where the lanes stand, and which of them are this instance's.
    positions: Arc<LanePositions>,
    /// The way to the message server.
    pub(crate) nats: Arc<Link>,
    /// That of the webhooks, where they are served.
    pub(crate) webhooks_nats: Option<Link>,
    signing: Option<Signing>,
    witnesses: Option<Witnesses<http_client::Client>>,
    /// The newest checkpoint, for those who ask.
    released: Released,
    /// Why the watchdog is not fed.
    unfed: Mutex<Option<String>>,
    pub(crate) stop: CancellationToken,
}

pub(crate) fn run(config: Config, file: Option<PathBuf>) -> Result<(), Failure> {
    telemetry::start(&config.log).map_err(|why| Failure::new(Exit::Configuration, why))?;
    let signals = systemd::signals().map_err(|error| Failure::new(Exit::Failed, error))?;
    let daemon = Arc::new(Daemon::new(config, file)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, error))?;
    let ended = runtime.block_on(live(daemon, signals));
    runtime.shutdown_background();
    if let Err(failure) = &ended {
        tracing::error!("ending: {}", failure.what);
    }
    // The log has told why; a second telling on the terminal would only repeat it.
    ended.map_err(|failure| Failure { what: String::new(), ..failure })
}

/// Serves until the daemon has ended by itself, or was told twice to stop.
async fn live(daemon: Arc<Daemon>, mut signals: mpsc::Receiver<Signal>) -> Result<(), Failure> {
    let (reload, reloads) = mpsc::channel(1);
    let serving = daemon.clone().serve(reloads);
    tokio::pin!(serving);
    loop {
        tokio::select! {
            ended = &mut serving => return ended,
            signal = signals.recv() => match signal {
                Some(Signal::Reload) => {
                    // A reload that is waiting already will see what this one would.
                    let _ = reload.try_send(());
                }
                Some(Signal::Stop) if daemon.stop.is_cancelled() => {
                    return Err(Failure::new(Exit::Failed, "told to stop twice: what was in flight is read again"));
                }
                Some(Signal::Stop) | None => {
                    tracing::info!("stopping: settling what is in flight");
                    systemd::stopping("settling what is in flight", daemon.stop_time_max());
                    daemon.stop.cancel();
                }
            },
        }
    }
}

impl Daemon {
    fn new(config: Config, file: Option<PathBuf>) -> Result<Self, Failure> {
        let rules = rules::load(&config).map_err(|why| Failure::new(Exit::Configuration, why))?;
        tracing::info!(
            actors = rules.agents.len(),
            actions = rules.registry.len(),
            "ledgerd {} starts",
            env!("CARGO_PKG_VERSION")
        );
        let metrics = Arc::new(Metrics::new());
        let instance = instance_name();
        let lanes: Vec<_> = config.lanes.iter().map(|&lane| (lane, metrics.lane(lane))).collect();
        let rules = watch::Sender::new(Arc::new(rules));
        Ok(Self {
            gate: Gate {
                connections: connect::database(&config, GATE_CONNECTIONS_MAX)?,
                rules: rules.subscribe(),
                budget: config.budget.clone(),
            },
            rules,
            tokens: watch::Sender::new(tokens(&config)),
            refusals: Arc::default(),
            ledger: Ledger::new(connect::database(&config, config.database.writers)?, config.budget.clone()),
            dead_letters: LetterQueue::over(connect::database(&config, 1)?),
            alerts: LetterQueue::over(connect::database(&config, 1)?),
            notify_targets: watch::Sender::new(notify::targets(&config)),
            notify_store: NotifyStore {
                connections: connect::database(&config, notify::CONNECTIONS_MAX)?,
                instance: instance.clone(),
            },
            receipts: Arc::new(ReceiptQueries(connect::database(&config, RECEIPT_CONNECTIONS_MAX)?)),
            log: Arc::new(LogStore(connect::database(&config, LOG_CONNECTIONS_MAX)?)),
            health: Arc::new(connect::health(&config)),
            metrics,
            lanes,
            positions: Arc::new(LanePositions::new(connect::database(&config, POSITION_CONNECTIONS_MAX)?, instance)),
            nats: Arc::new(Link::new(connect::nats_settings(&config.nats)?)),
            webhooks_nats: webhooks::nats_settings(&config)?.map(Link::new),
            signing: Signing::of(&config)?,
            witnesses: witnesses::of(&config)?,
            released: watch::Sender::new(None),
            unfed: Mutex::new(None),
            stop: CancellationToken::new(),
            config,
            file,
        })
    }

    /// From the word to stop to the end, at most.
    fn stop_time_max(&self) -> Duration {
        let answering = self.config.webhooks.as_ref().map(|webhooks| webhooks.patience + ANSWERING_TIME_MAX);
        let sending = if self.notify_targets.borrow().is_empty() { Duration::ZERO } else { notify::ENDING_TIME_MAX };
        self.config.shutdown_deadline + FLUSH_TIMEOUT + answering.unwrap_or_default() + sending + ENDING_TIME_MAX
    }

    async fn serve(self: Arc<Self>, reloads: mpsc::Receiver<()>) -> Result<(), Failure> {
        let http_stop = CancellationToken::new();
        let mut servers = self.serve_http(&http_stop)?;
        let reloading = tokio::spawn(self.clone().reload_on_demand(reloads));
        let watching = [tokio::spawn(self.clone().tell_systemd()), tokio::spawn(self.clone().watch())];
        let notifying = tokio::spawn(self.clone().notify());
        let ended = self.clone().serve_until_told().await;
        reloading.abort();
        watching.iter().for_each(JoinHandle::abort);
        self.stop.cancel();
        let _ = timeout(notify::ENDING_TIME_MAX, notifying).await;
        http_stop.cancel();
        if let (Ok(()), Some(webhooks)) = (&ended, &self.config.webhooks) {
            // Whoever has asked is answered: the record is safe, and perhaps not committed before the next start.
            let _ =
                timeout(webhooks.patience + ANSWERING_TIME_MAX, async { while servers.join_next().await.is_some() {} })
                    .await;
        }
        ended
    }

    /// Answers on one address, or on two where the webhooks have their own.
    fn serve_http(self: &Arc<Self>, stop: &CancellationToken) -> Result<JoinSet<io::Result<()>>, Failure> {
        let mut servers = JoinSet::new();
        let webhooks = self.webhooks();
        let own_address = self.config.webhooks.as_ref().and_then(|webhooks| webhooks.listen);
        let http = &self.config.http;
        let limits = bounded_listener::Limits {
            connections_max: http.connections_max,
            connections_per_address_max: http.connections_per_address_max,
            headers_timeout: http.headers_timeout,
        };
        if webhooks.is_some() && own_address.or(http.listen).is_none() {
            let why = "webhooks.tokens lets somebody in, and nothing listens: set webhooks.listen, or http.listen";
            return Err(Failure::new(Exit::Configuration, why));
        }
        if let (Some(address), Some(webhooks)) = (own_address, webhooks.clone()) {
            let listener = bind("webhooks.listen", address)?;
            servers.spawn(routes::serve(listener, webhooks, limits, stop.clone()));
        }
        if let Some(address) = http.listen {
            let listener = bind("http.listen", address)?;
            let (health, metrics) = (self.health.clone(), self.metrics.clone());
            let here = webhooks.filter(|_| own_address.is_none()).map(|webhooks| webhooks.router).unwrap_or_default();
            let rooms = log_pages::pages(&self.log).0.merge(here);
            servers.spawn(http::serve(listener, health, metrics, rooms, limits, stop.clone()));
        }
        Ok(servers)
    }

    /// Runs the lanes over one client after the other: a client ends when a message makes its reader panic. The next one
    /// takes over what was left behind, that message included, by another way.
    async fn serve_until_told(self: Arc<Self>) -> Result<(), Failure> {
        let mut meeting = Meeting::First;
        // Connecting holds large buffers, which need not be part of every future around it.
        while let Some(connection) = Box::pin(self.meet_both(meeting)).await? {
            meeting = Meeting::Again;
            self.clone().run_lanes(&connection, &self.stop.child_token()).await?;
            if self.stop.is_cancelled() {
                break;
            }
            tracing::error!("the NATS client has ended, as it does on some malformed messages; starting another");
        }
        tracing::info!("stopped; {}", self.counts());
        self.health.nats.retire();
        Ok(())
    }

    /// Runs a pipeline for each lane, and the outbox, until all have settled what is in flight.
    async fn run_lanes(self: Arc<Self>, connection: &Connection, stop: &CancellationToken) -> Result<(), Failure> {
        let api = Api::new(connection);
        let mut loops = JoinSet::new();
        let post = ReceiptStream::new(connection, &self.config.nats.receipts_stream);
        let notifier = Arc::new(Receipts::new(self.receipts.clone(), post, self.metrics.receipts()));
        for position in 0..self.lanes.len() {
            let source = LaneSource::start(self.reader(position, &api, stop));
            let (daemon, notifier, stop) = (self.clone(), notifier.clone(), stop.clone());
            loops.spawn(async move {
                let (lane, metrics) = &daemon.lanes[position];
                let pulse = daemon.health.pulse(&format!("the pipeline of {lane}"));
                let lane = LaneContext {
                    name: lane.prefix(),
                    rules: daemon.rules.subscribe(),
                    store_health: &daemon.health.postgres,
                    pulse: &pulse,
                    metrics,
                    stop: &stop,
                };
                Box::pin(pipeline::run(source, &daemon.ledger, &*notifier, lane)).await;
                daemon.positions.release(daemon.lanes[position].0).await;
            });
        }
        let (daemon, positions_stop) = (self.clone(), stop.clone());
        loops.spawn(async move { daemon.positions.keep(|| daemon.ledger.failing_for(), &positions_stop).await });
        let (daemon, count_api, count_stop) = (self.clone(), api.clone(), stop.clone());
        loops.spawn(async move { daemon.count(&count_api, &*notifier, &count_stop).await });
        let (daemon, outbox_stop) = (self.clone(), stop.clone());
        let dead_letters = DeadLetterStream::new(api.clone(), &self.config.nats.dlq_stream);
        loops.spawn(async move { Box::pin(daemon.publish_dead_letters(&dead_letters, &outbox_stop)).await });
        let publisher = CheckpointSubject(connection.client.clone());
        let (daemon, signer_stop) = (self.clone(), stop.clone());
        loops.spawn(async move { daemon.sign_checkpoints(&publisher, &signer_stop).await });
        let (daemon, witness_stop) = (self.clone(), stop.clone());
        loops.spawn(async move { daemon.ask_witnesses(&witness_stop).await });
        let (daemon, gate_client, gate_stop) = (self.clone(), connection.client.clone(), stop.clone());
        loops.spawn(async move { gate_subject::serve(&gate_client, &daemon.gate, &gate_stop).await });
        let (daemon, outbox_stop) = (self.clone(), stop.clone());
        let alerts = AlertStream::new(api, &self.config.nats.alerts_stream);
        loops.spawn(async move { daemon.publish_alerts(&alerts, &outbox_stop).await });

        let mut deadline = None;
        loop {
            let joined = match deadline {
                None => tokio::select! {
                    joined = loops.join_next() => joined,
                    () = stop.cancelled() => {
                        deadline = Some(tokio::time::Instant::now() + self.config.shutdown_deadline);
                        continue;
                    }
                },
                Some(deadline) => {
                    let Ok(joined) = tokio::time::timeout_at(deadline, loops.join_next()).await else {
                        let what = "shutdown.deadline has passed: what is still in flight is read again";
                        return Err(Failure::new(Exit::Failed, what));
                    };
                    joined
                }
            };
            match joined {
                Some(Ok(())) if deadline.is_some() || stop.is_cancelled() => {}
                Some(Ok(())) => return Err(Failure::new(Exit::Failed, "a loop ended by itself: this is a bug")),
                Some(Err(error)) => {
                    return Err(Failure::new(Exit::Failed, format!("a loop broke: {error}: this is a bug")));
                }
                None => break,
            }
        }
        // The last acknowledgements may still be on their way through the client.
        let _ = timeout(FLUSH_TIMEOUT, connection.client.flush()).await;
        Ok(())
    }

    fn reader(&self, position: usize, api: &Api, stop: &CancellationToken) -> LaneReader<LanePositions> {
        let (lane, metrics) = &self.lanes[position];
        LaneReader {
            lane: *lane,
            names: Arc::new(Names::from(&self.config.nats)),
            api: api.clone(),
            link: self.nats.clone(),
            positions: self.positions.clone(),
            limits: PullLimits { messages_max: self.config.batch_messages_max, bytes_max: self.config.batch_bytes_max },
            health: self.health.clone(),
            metrics: metrics.clone(),
            stop: stop.clone(),
        }
    }

    async fn publish_dead_letters(&self, stream: &DeadLetterStream, stop: &CancellationToken) {
        let pulse = self.health.pulse("the outbox");
        let outbox = Outbox {
            name: "outbox",
            wake: &self.ledger.dead_letters_waiting,
            queue_health: &self.health.postgres,
            delivery_health: &self.health.dead_letters,
            pulse: &pulse,
            published: &self.metrics.dead_letters_published,
            waiting: &self.metrics.dead_letters_unpublished,
            stop,
        };
        outbox::run(&self.dead_letters, stream, outbox).await;
    }

    async fn publish_alerts(&self, stream: &AlertStream, stop: &CancellationToken) {
        let pulse = self.health.pulse("the budget alerts");
        let outbox = Outbox {
            name: "budget alerts",
            wake: &self.ledger.alerts_waiting,
            queue_health: &self.health.postgres,
            delivery_health: &self.health.alerts,
            pulse: &pulse,
            published: &self.metrics.budget_alerts_published,
            waiting: &self.metrics.budget_alerts_unpublished,
            stop,
        };
        outbox::run(&self.alerts, stream, outbox).await;
    }

    async fn sign_checkpoints(&self, publisher: &CheckpointSubject, stop: &CancellationToken) {
        let Some(Signing { key, anchor }) = &self.signing else {
            self.health.checkpoints.up("checkpoint signer");
            return stop.cancelled().await;
        };
        let pulse = self.health.pulse("the signer");
        let context = SignerContext {
            key,
            anchor,
            pace: Pace { interval: self.config.checkpoint.interval, heartbeat: self.config.checkpoint.heartbeat },
            released: &self.released,
            health: &self.health.checkpoints,
            pulse: &pulse,
            metrics: &self.metrics.checkpoints,
            stop,
        };
        Box::pin(signer::run(&*self.log, publisher, context)).await;
    }

    async fn ask_witnesses(&self, stop: &CancellationToken) {
        let (Some(witnesses), Some(signing)) = (&self.witnesses, &self.signing) else { return stop.cancelled().await };
        let (released, heartbeat) = (self.released.subscribe(), self.config.checkpoint.heartbeat);
        Box::pin(witnesses::ask(witnesses, &signing.key, &self.log, released, heartbeat, stop)).await;
    }

    /// Feeds the watchdog from the loops' progress, and keeps the status line true.
    async fn tell_systemd(self: Arc<Self>) {
        let mut ticks = interval(STATUS_INTERVAL);
        let mut told = String::new();
        loop {
            ticks.tick().await;
            self.tell_alive();
            let status = self.status();
            if status != told && !self.stop.is_cancelled() {
                systemd::status(&status);
                told = status;
            }
        }
    }

    /// Feeds the watchdog, unless a restart would help; says once why it does not.
    pub(crate) fn tell_alive(&self) {
        let mut told = self.unfed.lock();
        let why = self.health.needs_restart();
        match &why {
            None => systemd::alive(),
            Some(why) if told.is_none() => tracing::error!("the watchdog is not fed any more: {why}"),
            Some(_) => {}
        }
        *told = why;
    }

    pub(crate) fn status(&self) -> String {
        let mut dependencies = self.health.dependencies().into_iter();
        if let Some((name, why)) = dependencies.find_map(|dependency| Some((dependency.name(), dependency.missing()?)))
        {
            return format!("waiting for {name}: {why}");
        }
        match self.health.stalls().told().first() {
            Some(stall) => stall.to_string(),
            None => format!("serving {} lanes; {}", self.lanes.len(), self.counts()),
        }
    }

    fn counts(&self) -> String {
        let sum = |count: fn(&LaneMetrics) -> u64| self.lanes.iter().map(|(_, metrics)| count(metrics)).sum::<u64>();
        let recorded = sum(|lane| lane.committed.get());
        let rejected = sum(LaneMetrics::rejected);
        let lag = sum(|lane| u64::try_from(lane.lag.get()).unwrap_or(0));
        format!("{recorded} recorded, {rejected} rejected, lag {lag}")
    }
}

fn tokens(config: &Config) -> Arc<ApiTokens> {
    Arc::new(config.webhooks.as_ref().map(|webhooks| webhooks.tokens.clone()).unwrap_or_default())
}

/// This process, among all that may read one stream into one database.
fn instance_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let draw = getrandom::u32().unwrap_or_default();
    format!("{}/{}/{draw:08x}", host.trim(), std::process::id())
}

fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    bounded_listener::bind(address).map_err(|error| Failure::new(Exit::Failed, format!("{key} {address}: {error}")))
}

struct Signing {
    key: SignerKey,
    anchor: Anchor,
}

impl Signing {
    /// `None`: this log is not signed.
    fn of(config: &Config) -> Result<Option<Self>, Failure> {
        let broken = |why: String| Failure::new(Exit::Configuration, why);
        let Some(key) = config.checkpoint.key().map_err(broken)? else { return Ok(None) };
        let anchor = Anchor::at(&config.checkpoint.anchor_file().map_err(broken)?);
        Ok(Some(Self { key, anchor }))
    }
}

/// Readers of the log wait for each other, and never for a commit.
const LOG_CONNECTIONS_MAX: usize = 2;
const RECEIPT_CONNECTIONS_MAX: usize = 2;
const GATE_CONNECTIONS_MAX: usize = 4;
const POSITION_CONNECTIONS_MAX: usize = 2;
/// Beyond the patience of whoever asked last.
const ANSWERING_TIME_MAX: Duration = Duration::from_secs(1);
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// What is left to do then takes no time, but the machine may be busy.
const ENDING_TIME_MAX: Duration = Duration::from_secs(5);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
