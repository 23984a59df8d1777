//! The Prometheus metrics: every metric, with its name, its unit and its help text, in one place.

use crate::health::Health;
use crate::ingest::lifecycle::Tally;
use crate::record::lane::Lane;
use crate::record::reject::Reason;
use crate::webhook::call::{Webhook, WebhookAnswer};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// A gauge of seconds.
type SecondsGauge = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabel {
    lane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectLabel {
    lane: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DependencyLabel {
    dependency: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabel {
    webhook: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabel {
    target: String,
}

/// The counters of one target of notifications.
#[derive(Clone, Debug)]
pub struct TargetMetrics {
    pub delivered: Counter,
    pub failed_attempts: Counter,
    /// Too old to be tried again.
    pub given_up: Counter,
    pub waiting: Gauge,
    /// Age of the oldest that waits.
    pub oldest_waiting: SecondsGauge,
    /// Whether it answered 410: 1 or 0.
    pub disabled: Gauge,
}

/// The counters of one lane.
#[derive(Clone, Debug)]
pub struct LaneMetrics {
    /// Messages taken from the stream, redeliveries included.
    pub received: Counter,
    /// Records that became rows.
    pub committed: Counter,
    /// Records that were stored before under another sequence.
    pub duplicates: Counter,
    /// Messages that were stored before.
    pub redelivered: Counter,
    rejects: Vec<(Reason, Counter)>,
    /// Acknowledgements that the server did not confirm.
    pub acks_unconfirmed: Counter,
    /// Messages that were read through the stream's own API, for the client cannot read them or one beside them.
    pub read_around: Counter,
    /// Messages that were taken and are not stored.
    pub in_flight: Gauge,
    /// Sequences that the stream lost before they were read.
    pub gap_sequences: Counter,
    /// Messages in the stream that were not delivered yet.
    pub lag: Gauge,
    /// Age of the oldest message that is not stored.
    pub oldest_unstored: SecondsGauge,
    batch_messages: Histogram,
    commit_duration: Histogram,
}

impl LaneMetrics {
    /// Observes a commit that was confirmed.
    pub fn observe_commit(&self, messages: usize, duration: Duration) {
        self.batch_messages.observe(f64::from(u32::try_from(messages).unwrap_or(u32::MAX)));
        self.commit_duration.observe(duration.as_secs_f64());
    }

    /// Counts what a commit did.
    pub fn count(&self, tally: &Tally) {
        self.committed.inc_by(tally.recorded as u64);
        self.duplicates.inc_by(tally.duplicates as u64);
        self.redelivered.inc_by(tally.known as u64);
        for (reason, counter) in &self.rejects {
            counter.inc_by(tally.rejected.get(reason).copied().unwrap_or(0) as u64);
        }
    }

    /// Messages that became dead letters, by reason.
    pub fn rejects(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        self.rejects.iter().map(|(reason, counter)| (*reason, counter.get())).filter(|(_, count)| *count > 0)
    }

    /// Messages that this process has stored or found stored, whatever their fate.
    pub fn settled(&self) -> u64 {
        self.committed.get() + self.duplicates.get() + self.redelivered.get() + self.rejected()
    }

    /// Messages that became dead letters, whatever the reason.
    pub fn rejected(&self) -> u64 {
        self.rejects.iter().map(|(_, counter)| counter.get()).sum()
    }
}

/// The gauges of the log's checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointMetrics {
    /// Checkpoints that were signed.
    pub signed: Counter,
    /// The size of the newest.
    pub size: Gauge,
    /// Whether signing is refused, for the tree is not the one that was signed before: 1 or 0.
    pub refusing: Gauge,
}

#[derive(Clone, Debug)]
pub struct ReceiptMetrics {
    pub confirmed: Counter,
    /// They were published, if at all, and nobody knows whether the stream has them.
    pub unconfirmed: Counter,
}

#[derive(Clone, Debug)]
pub struct WebhookMetrics(Family<WebhookLabel, Counter>);

impl WebhookMetrics {
    pub fn count(&self, webhook: &'static str, code: u16) {
        self.0.get_or_create(&WebhookLabel { webhook, code }).inc();
    }
}

/// Registers a metric under its name, and gives it to whoever counts.
fn register<M: Metric + Clone>(registry: &mut Registry, metric: M, name: &str, help: &str) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn register_seconds<M: Metric + Clone>(registry: &mut Registry, metric: M, name: &str, help: &str) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

fn metric<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    register(registry, M::default(), name, help)
}

fn seconds_metric<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    register_seconds(registry, M::default(), name, help)
}

/// What is counted of the targets of notifications.
#[derive(Debug)]
struct NotificationFamilies {
    delivered: Family<TargetLabel, Counter>,
    failed_attempts: Family<TargetLabel, Counter>,
    given_up: Family<TargetLabel, Counter>,
    waiting: Family<TargetLabel, Gauge>,
    oldest_waiting: Family<TargetLabel, SecondsGauge>,
    disabled: Family<TargetLabel, Gauge>,
}

impl NotificationFamilies {
    fn registered(all: &mut Registry) -> Self {
        Self {
            delivered: metric(all, "notifications_delivered", "Notifications that their target accepted"),
            failed_attempts: metric(
                all,
                "notification_attempts_failed",
                "Attempts at a notification that its target did not accept",
            ),
            given_up: metric(
                all,
                "notifications_given_up",
                "Notifications that failed and are too old to be tried again",
            ),
            waiting: metric(all, "notifications_waiting", "Notifications that wait, up to about a thousand"),
            oldest_waiting: seconds_metric(
                all,
                "notifications_oldest_waiting_age",
                "Age of the oldest notification that waits, 0 when there is none",
            ),
            disabled: metric(
                all,
                "notify_target_disabled",
                "Whether the target has answered 410 Gone, and is told nothing: 1 or 0",
            ),
        }
    }
}

/// All metrics. Every label value exists from the start, at zero, so that an alert on a rate works from the first fault.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    received: Family<LaneLabel, Counter>,
    committed: Family<LaneLabel, Counter>,
    duplicates: Family<LaneLabel, Counter>,
    redelivered: Family<LaneLabel, Counter>,
    rejects: Family<RejectLabel, Counter>,
    acks_unconfirmed: Family<LaneLabel, Counter>,
    read_around: Family<LaneLabel, Counter>,
    in_flight: Family<LaneLabel, Gauge>,
    gap_sequences: Family<LaneLabel, Counter>,
    lag: Family<LaneLabel, Gauge>,
    oldest_unstored: Family<LaneLabel, SecondsGauge>,
    stalled: Family<LaneLabel, SecondsGauge>,
    batch_messages: Histogram,
    commit_duration: Histogram,
    receipts: Family<ResultLabel, Counter>,
    webhook_answers: Family<WebhookLabel, Counter>,
    notifications: NotificationFamilies,
    dependency_up: Family<DependencyLabel, Gauge>,
    reloads: Family<ResultLabel, Counter>,
    /// Whether the last reload took: 1 or 0.
    last_reload_successful: Gauge,
    /// Dead letters that reached their subject.
    pub dead_letters_published: Counter,
    /// Dead letters that did not reach their subject yet.
    pub dead_letters_unpublished: Gauge,
    /// Budget alerts that reached their subject.
    pub budget_alerts_published: Counter,
    /// Budget alerts that did not reach their subject yet.
    pub budget_alerts_unpublished: Gauge,
    pub checkpoints: CheckpointMetrics,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("ledgerd");
        let all = &mut registry;
        let batch_messages = Histogram::new(exponential_buckets(1.0, 2.0, 12));
        let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        let commit_duration = Histogram::new(seconds);
        all.register("build", "The running program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let started: SecondsGauge = seconds_metric(all, "start_time", "When the program started, since 1970");
        started.set(crate::clock::since_1970().as_secs_f64());
        let metrics = Self {
            received: metric(all, "messages_received", "Messages taken from the stream, redeliveries included"),
            committed: metric(all, "records_committed", "Records that became rows"),
            duplicates: metric(all, "duplicates", "Records that were stored before under another sequence"),
            redelivered: metric(all, "redeliveries", "Messages that were stored before and came again"),
            rejects: metric(all, "rejects", "Messages that became dead letters"),
            acks_unconfirmed: metric(all, "acks_unconfirmed", "Acknowledgements that the server did not confirm"),
            read_around: metric(
                all,
                "messages_read_around",
                "Messages that were read through the stream's own API, for the client cannot read them or one beside them",
            ),
            in_flight: metric(all, "in_flight_messages", "Messages that were taken and are not stored yet"),
            gap_sequences: metric(
                all,
                "gap_sequences",
                "Sequences that the stream lost before they were read for the lane",
            ),
            lag: metric(all, "consumer_lag_messages", "Messages in the stream that were not delivered yet"),
            oldest_unstored: seconds_metric(
                all,
                "oldest_unstored_age",
                "Age of the oldest message of the lane that is not stored, 0 when there is none",
            ),
            stalled: seconds_metric(
                all,
                "stalled",
                "How long messages of the lane have waited with nothing settled and nothing known to be down, 0 while it moves",
            ),
            batch_messages: register(all, batch_messages, "batch_messages", "Messages in each commit"),
            commit_duration: register_seconds(
                all,
                commit_duration,
                "commit_duration",
                "Time from the begin of a commit to its confirmation",
            ),
            receipts: metric(all, "receipts", "Receipts for publishers that ask"),
            webhook_answers: metric(all, "webhook_answers", "Answers to webhooks, by their code"),
            notifications: NotificationFamilies::registered(all),
            dependency_up: metric(all, "dependency_up", "Whether a dependency is there: 1 or 0"),
            dead_letters_published: metric(all, "dead_letters_published", "Dead letters that reached their subject"),
            dead_letters_unpublished: metric(
                all,
                "dead_letters_unpublished",
                "Dead letters that did not reach their subject yet",
            ),
            budget_alerts_unpublished: metric(
                all,
                "budget_alerts_unpublished",
                "Changes of an agent's budget status that did not reach their subject yet",
            ),
            budget_alerts_published: metric(
                all,
                "budget_alerts_published",
                "Changes of an agent's budget status that reached their subject",
            ),
            reloads: metric(all, "config_reloads", "Reloads by SIGHUP"),
            last_reload_successful: metric(
                all,
                "config_last_reload_successful",
                "Whether the last reload took: 1 or 0",
            ),
            checkpoints: CheckpointMetrics {
                signed: metric(all, "checkpoints_signed", "Checkpoints that were signed"),
                size: metric(all, "checkpoint_leaves", "Leaves of the newest signed checkpoint"),
                refusing: metric(
                    all,
                    "checkpoint_refusing",
                    "Whether signing is refused, for the tree is not the one that was signed before: 1 or 0",
                ),
            },
            registry,
        };
        metrics.at_zero()
    }

    /// Every label value at 0 from the start, so that a rate sees the first.
    fn at_zero(self) -> Self {
        for webhook in Webhook::ALL {
            for code in WebhookAnswer::STATUSES {
                let _ = self.webhook_answers.get_or_create(&WebhookLabel { webhook: webhook.name(), code });
            }
        }
        let _ = self.receipts();
        for result in ["success", "failure"] {
            let _ = self.reloads.get_or_create(&ResultLabel { result });
        }
        self.last_reload_successful.set(1);
        self
    }

    /// The counters of a lane.
    pub fn lane(&self, lane: Lane) -> LaneMetrics {
        let label = LaneLabel { lane: lane.prefix() };
        self.stalled.get_or_create_owned(&label).set(0.0);
        let rejects = Reason::ALL.iter().map(|&reason| {
            let label = RejectLabel { lane: lane.prefix(), reason: reason.code() };
            (reason, self.rejects.get_or_create_owned(&label))
        });
        LaneMetrics {
            received: self.received.get_or_create_owned(&label),
            committed: self.committed.get_or_create_owned(&label),
            duplicates: self.duplicates.get_or_create_owned(&label),
            redelivered: self.redelivered.get_or_create_owned(&label),
            rejects: rejects.collect(),
            acks_unconfirmed: self.acks_unconfirmed.get_or_create_owned(&label),
            read_around: self.read_around.get_or_create_owned(&label),
            in_flight: self.in_flight.get_or_create_owned(&label),
            gap_sequences: self.gap_sequences.get_or_create_owned(&label),
            lag: self.lag.get_or_create_owned(&label),
            oldest_unstored: self.oldest_unstored.get_or_create_owned(&label),
            batch_messages: self.batch_messages.clone(),
            commit_duration: self.commit_duration.clone(),
        }
    }

    pub fn receipts(&self) -> ReceiptMetrics {
        let [confirmed, unconfirmed] =
            ["confirmed", "unconfirmed"].map(|result| self.receipts.get_or_create_owned(&ResultLabel { result }));
        ReceiptMetrics { confirmed, unconfirmed }
    }

    /// The counters of a target.
    pub fn notify_target(&self, name: &str) -> TargetMetrics {
        let label = TargetLabel { target: name.to_owned() };
        TargetMetrics {
            delivered: self.notifications.delivered.get_or_create_owned(&label),
            failed_attempts: self.notifications.failed_attempts.get_or_create_owned(&label),
            given_up: self.notifications.given_up.get_or_create_owned(&label),
            waiting: self.notifications.waiting.get_or_create_owned(&label),
            oldest_waiting: self.notifications.oldest_waiting.get_or_create_owned(&label),
            disabled: self.notifications.disabled.get_or_create_owned(&label),
        }
    }

    pub fn webhooks(&self) -> WebhookMetrics {
        WebhookMetrics(self.webhook_answers.clone())
    }

    pub fn reloaded(&self, success: bool) {
        self.reloads.get_or_create(&ResultLabel { result: if success { "success" } else { "failure" } }).inc();
        self.last_reload_successful.set(i64::from(success));
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self, health: &Health) -> String {
        for (label, dependency) in [
            ("postgres", &health.postgres),
            ("nats", &health.nats),
            ("dead_letters", &health.dead_letters),
            ("alerts", &health.alerts),
            ("checkpoints", &health.checkpoints),
            ("webhooks", &health.webhooks),
            ("completeness", &health.completeness),
        ] {
            self.dependency_up.get_or_create(&DependencyLabel { dependency: label }).set(i64::from(dependency.is_up()));
        }
        for (lane, stood_still) in health.stalls().durations() {
            self.stalled.get_or_create(&LaneLabel { lane }).set(stood_still.as_secs_f64());
        }
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
