//! Reloads the registry, the agents and the credentials on demand while the daemon runs: all of them or none.

use crate::command::{Failure, connect, rules};
use crate::config::Config;
use crate::daemon::{Daemon, notify, tokens, webhooks};
use crate::systemd;
use std::sync::Arc;
use tokio::sync::mpsc;

impl Daemon {
    pub(crate) async fn reload_on_demand(self: Arc<Self>, mut reloads: mpsc::Receiver<()>) {
        while reloads.recv().await.is_some() {
            systemd::reloading();
            let reloaded = self.reload().await;
            self.metrics.reloaded(reloaded.is_ok());
            match reloaded {
                Ok(()) => {
                    let rules = self.rules.borrow().clone();
                    tracing::info!(
                        actors = rules.agents.len(),
                        actions = rules.registry.len(),
                        "reloaded registry, agents and credentials"
                    );
                    systemd::ready(&self.status());
                }
                Err(why) => {
                    tracing::error!("reload failed, what was in force stays in force: {why}");
                    systemd::ready(&format!("reload failed, the old registry stays in force: {why}"));
                }
            }
        }
    }

    /// Reads registry, agents and credentials again; all of them, or none.
    async fn reload(&self) -> Result<(), String> {
        let config = Config::load(self.file.as_deref()).map_err(|error| error.to_string())?;
        let rules = rules::load(&config)?;
        let url = config.database.url().map_err(|error| error.to_string())?;
        connect::database(&config, 1).map_err(|failure| failure.what)?;
        self.reload_nats(&config).await?;
        if self.config.webhooks.is_none() && config.webhooks.is_some() {
            tracing::warn!("webhooks.tokens lets somebody in now, and the webhooks are served after a restart only");
        }
        for connections in [
            self.ledger.connections(),
            self.dead_letters.connections(),
            self.alerts.connections(),
            &self.gate.connections,
            &self.receipts.0,
            &self.log.0,
            self.positions.connections(),
            &self.notify_store.connections,
        ] {
            connections.set_url(url).map_err(|why| format!("database.url cannot be used: {why}"))?;
        }
        self.rules.send_replace(Arc::new(rules));
        self.tokens.send_replace(tokens(&config));
        self.notify_targets.send_replace(notify::targets(&config));
        Ok(())
    }

    /// Connects anew where there is anything that may have been rotated.
    async fn reload_nats(&self, config: &Config) -> Result<(), String> {
        let what = |failure: Failure| failure.what;
        // Their files are read again at their next connection. To break this one would leave those who wait without an answer.
        if let (Some(link), Some(new)) = (&self.webhooks_nats, webhooks::nats_settings(config).map_err(what)?)
            && !link.has(&new)
        {
            link.renew(new).await.map_err(|error| format!("NATS, for the webhooks: {error}"))?;
        }
        let new = connect::nats_settings(&config.nats).map_err(what)?;
        self.nats.renew(new).await.map_err(|error| format!("NATS: {error}"))
    }
}
