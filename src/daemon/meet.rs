//! The startup checks of `ledgerd run`. It begins to serve once both servers have answered, and no fault was found that
//! only an operator can fix.

use crate::command::{Exit, Failure};
use crate::daemon::Daemon;
use crate::nats::api::{Api, ApiError};
use crate::nats::client::Connection;
use crate::nats::definitions::Names;
use crate::nats::setup::{Mode, SetupOutcome, setup, version_complaint};
use crate::postgres::schema;
use crate::retry::Backoff;
use crate::systemd;

/// What only an operator can mend ends the daemon at its first meeting with the servers, and is waited for later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// With this program's configuration as it was started.
    First,
    /// After the client has ended.
    Again,
}

impl Daemon {
    /// Waits for both servers. A server that is away is waited for; one that says no ends the daemon at once, for only an
    /// operator can change that. `None`: told to stop.
    pub(crate) async fn meet_both(&self, meeting: Meeting) -> Result<Option<Connection>, Failure> {
        let mut backoff = Backoff::for_dependency();
        let mut is_first = true;
        // The lanes themselves wait for PostgreSQL once it was met.
        let mut postgres_met = meeting == Meeting::Again;
        let mut connection = None;
        loop {
            let (postgres, nats) = tokio::join!(self.meet_postgres(postgres_met), self.meet_nats(connection.take()));
            postgres_met = postgres?;
            connection = match nats {
                Err(failure) if meeting == Meeting::Again => {
                    self.health.nats.down("start", &failure.what);
                    None
                }
                nats => nats?,
            };
            if let (true, Some(connection)) = (postgres_met, &connection) {
                systemd::ready(&self.status());
                tracing::info!(lanes = self.lanes.len(), "ready");
                return Ok(Some(connection.clone()));
            }
            if std::mem::take(&mut is_first) {
                // Started, though not ready: systemd must not end what only waits.
                systemd::ready(&self.status());
            }
            systemd::status(&self.status());
            self.tell_alive();
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait()) => {}
                () = self.stop.cancelled() => return Ok(None),
            }
        }
    }

    async fn meet_postgres(&self, met: bool) -> Result<bool, Failure> {
        if met {
            return Ok(true);
        }
        match schema::state(self.ledger.connections()).await {
            Ok(state) => {
                if let Some(complaint) = state.complaint() {
                    return Err(Failure::new(Exit::Configuration, complaint));
                }
                self.health.postgres.up("start");
                Ok(true)
            }
            Err(error) if error.is_refusal() => Err(error.into()),
            Err(error) => {
                self.health.postgres.down("start", &error.to_string());
                Ok(false)
            }
        }
    }

    async fn meet_nats(&self, met: Option<Connection>) -> Result<Option<Connection>, Failure> {
        if met.is_some() {
            return Ok(met);
        }
        match self.nats.connect(Some(self.health.clone())).await {
            Ok(connection) => {
                if let Some(complaint) = version_complaint(&connection.client.server_info()) {
                    return Err(Failure::new(Exit::Configuration, complaint));
                }
                self.refuse_dangerous_drift(&Api::new(&connection)).await?;
                self.health.nats.up("start");
                Ok(Some(connection))
            }
            Err(error) if error.refused => Err(Failure::new(Exit::Configuration, format!("NATS: {error}"))),
            Err(error) => {
                self.health.nats.down("start", &error.to_string());
                Ok(None)
            }
        }
    }

    async fn refuse_dangerous_drift(&self, api: &Api) -> Result<(), Failure> {
        // Consumers are the lanes' own: each makes its own anew.
        let items = match setup(api, &Names::from(&self.config.nats), &[], Mode::Look).await {
            Ok(items) => items,
            // Each lane asks again for what it needs, and says what is missing.
            Err(ApiError::Silent(why)) => {
                tracing::warn!("the streams were not compared with nats/: {why}");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        for item in &items {
            if let Some(drift) = item.outcome.dangerous_drift() {
                return Err(Failure::new(
                    Exit::Configuration,
                    format!("{drift}: mend it, or run `ledgerd setup --apply`"),
                ));
            }
            if let SetupOutcome::Differs(drift) = &item.outcome {
                tracing::warn!("{} differs from nats/ in {} settings: see `ledgerd check`", item.name, drift.len());
            }
        }
        Ok(())
    }
}
