//! Tells the targets of the settings of events, and writes the notices that no commit causes: stalls, and refused
//! checkpoints.

use crate::config::{Config, NotifyTarget};
use crate::daemon::Daemon;
use crate::notify::delivery::Delivery;
use crate::notify::notices;
use crate::notify::sender::Sender;
use crate::postgres::remedy::DatabaseError;
use crate::retry::Backoff;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

/// Targets share these.
pub(crate) const CONNECTIONS_MAX: usize = 2;
/// A notification that is being sent at the stop is waited for so long. After that it is sent again, with the same id.
pub(crate) const ENDING_TIME_MAX: Duration = Duration::from_secs(5);
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn targets(config: &Config) -> Arc<Vec<NotifyTarget>> {
    Arc::new(config.notify.clone())
}

impl Daemon {
    /// Delivers until told to stop. New settings are taken over between two notifications.
    pub(crate) async fn notify(self: Arc<Self>) {
        let mut settings = self.notify_targets.subscribe();
        while !self.stop.is_cancelled() {
            let targets = settings.borrow_and_update().clone();
            let stop = self.stop.child_token();
            let delivering = self.deliver(&targets, &stop);
            tokio::pin!(delivering);
            tokio::select! {
                () = &mut delivering => {}
                _ = settings.changed() => {
                    stop.cancel();
                    delivering.await;
                }
            }
        }
    }

    async fn deliver(self: &Arc<Self>, targets: &Arc<Vec<NotifyTarget>>, stop: &CancellationToken) {
        // At zero from the start, so that a rate sees the first.
        targets.iter().for_each(|target| drop(self.metrics.notify_target(&target.name)));
        let Some(sender) = self.register(targets, stop).await else { return };
        let sender = Arc::new(sender);
        let mut deliveries = JoinSet::new();
        for position in 0..targets.len() {
            let (daemon, targets, sender, stop) = (self.clone(), targets.clone(), sender.clone(), stop.clone());
            deliveries.spawn(async move {
                let target = &targets[position];
                let metrics = daemon.metrics.notify_target(&target.name);
                let delivery =
                    Delivery { target, store: &daemon.notify_store, sender: &sender, metrics: &metrics, stop: &stop };
                Box::pin(delivery.run()).await;
            });
        }
        stop.cancelled().await;
        while deliveries.join_next().await.is_some() {}
    }

    /// Until the database has the targets. `None`: told to stop before.
    async fn register(&self, targets: &[NotifyTarget], stop: &CancellationToken) -> Option<Sender> {
        let mut backoff = Backoff::for_operator();
        loop {
            let registered = self.notify_store.register(targets).await.map_err(|error| error.to_string());
            match registered.and_then(|()| Sender::new()) {
                Ok(sender) => return Some(sender),
                Err(why) if targets.is_empty() => tracing::debug!("the targets are not registered: {why}"),
                Err(why) => tracing::warn!("notifications wait, for the targets are not registered: {why}"),
            }
            tokio::select! {
                () = sleep(backoff.next_wait()) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Writes notices until the runtime ends. What cannot be written is written later, if it is still true.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut ticks = interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = BTreeSet::new();
        loop {
            ticks.tick().await;
            // Before, there may be no table.
            if self.health.postgres.is_up()
                && let Err(error) = self.write_notices(&mut told).await
            {
                tracing::debug!("notices are not written yet: {error}");
            }
        }
    }

    /// `told` has the lanes that this instance said to stand still.
    async fn write_notices(&self, told: &mut BTreeSet<&'static str>) -> Result<(), DatabaseError> {
        let connections = &self.notify_store.connections;
        let stalls = self.health.stalls().told();
        for stall in stalls.iter().filter(|stall| !told.contains(stall.lane())).collect::<Vec<_>>() {
            notices::lane_stalled(connections, stall.lane(), &stall.to_string()).await?;
            told.insert(stall.lane());
        }
        let moves = |lane: &&'static str| stalls.iter().all(|stall| stall.lane() != *lane);
        for lane in told.iter().copied().filter(moves).collect::<Vec<_>>() {
            notices::lane_moves(connections, lane).await?;
            told.remove(lane);
        }
        if stalls.is_empty() {
            notices::lanes_recovered(connections).await?;
        }
        if self.metrics.checkpoints.refusing.get() == 1
            && let Some(why) = self.health.checkpoints.missing()
        {
            notices::difference(connections, "checkpoint", &why).await?;
        }
        Ok(())
    }
}
