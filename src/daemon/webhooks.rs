//! Connects the webhooks to the stream, with a connection and a login of their own. The daemon's own login may not
//! publish records.

use crate::command::{Failure, connect};
use crate::config::{Config, Nats};
use crate::daemon::Daemon;
use crate::nats::api::Api;
use crate::nats::client::{self, Link};
use crate::nats::publish::PublishError;
use crate::receipt::submit::{Submission, SubmitClient, Submitted};
use crate::retry::Backoff;
use crate::webhook::call as webhook;
use crate::webhook::call::{Posting, SubmitOutcome};
use crate::webhook::routes::{WebhookLimits, WebhookRouter};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const RECEIPTS: &str = "receipt.*.*";
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Who waits for the connection.
const WEBHOOKS: &str = "webhooks";

/// The way in, while there is one.
struct Gate {
    intake: watch::Receiver<Option<Arc<SubmitClient>>>,
    stop: CancellationToken,
}

impl webhook::Submitter for Gate {
    async fn submit(&self, posting: Posting, deadline: Instant) -> SubmitOutcome {
        if self.stop.is_cancelled() {
            return SubmitOutcome::Unsafe("the daemon is stopping: try again".to_owned());
        }
        let intake = self.intake.borrow().clone().filter(|intake| intake.is_connected());
        let Some(intake) = intake else { return SubmitOutcome::Unsafe("NATS is away: try again".to_owned()) };
        let Posting { subject, message_id, payload, .. } = posting;
        match intake.submit(Submission { subject, message_id, payload }, deadline).await {
            Ok(Submitted::Told(receipt)) => SubmitOutcome::Told(Box::new(receipt)),
            Ok(Submitted::Queued(_)) => SubmitOutcome::Queued,
            Err(PublishError::Refused(why)) => {
                tracing::warn!("a webhook's record was not taken: {why}");
                SubmitOutcome::Unsafe("the stream does not take it: the log has told why".to_owned())
            }
            Err(PublishError::Unknown) => SubmitOutcome::Unsafe(
                "the stream did not confirm it: send it again; what has an id, or an Idempotency-Key, is stored once"
                    .to_owned(),
            ),
        }
    }
}

impl Daemon {
    /// The webhooks, and a task that keeps them connected. `None`: nobody is let in.
    pub(crate) fn webhooks(self: &Arc<Self>) -> Option<WebhookRouter> {
        let Some(settings) = &self.config.webhooks else {
            self.health.webhooks.up(WEBHOOKS);
            return None;
        };
        let limits = WebhookLimits {
            patience: settings.patience,
            requests_max: settings.requests_max,
            body_bytes_max: self.config.judging.record_bytes_max,
        };
        let (sender, intake) = watch::channel(None);
        tokio::spawn(self.clone().keep_connected(sender));
        tokio::spawn(self.clone().write_refusals());
        let gate = Gate { intake, stop: self.stop.clone() };
        let tokens = self.tokens.subscribe();
        Some(WebhookRouter::new(gate, tokens, limits, self.metrics.webhooks(), self.refusals.clone()))
    }

    /// Until the runtime ends: those who asked before a stop are still to be answered.
    async fn keep_connected(self: Arc<Self>, intake: watch::Sender<Option<Arc<SubmitClient>>>) {
        let Some(link) = &self.webhooks_nats else { return };
        let health = &self.health.webhooks;
        let mut backoff = Backoff::for_dependency();
        loop {
            match open(link, &self.config.nats).await {
                Ok(opened) => {
                    let opened = Arc::new(opened);
                    intake.send_replace(Some(opened.clone()));
                    backoff.reset();
                    while !opened.has_ended() {
                        if opened.is_connected() {
                            health.up(WEBHOOKS);
                        } else {
                            health.down(WEBHOOKS, "the connection is lost");
                        }
                        sleep(LOOK_INTERVAL).await;
                    }
                    intake.send_replace(None);
                    health.down(WEBHOOKS, "the NATS client has ended; starting another");
                }
                Err(why) => health.down(WEBHOOKS, &why),
            }
            sleep(backoff.next_wait()).await;
        }
    }
}

/// How the webhooks reach the server; `None`: nobody is let in.
pub(crate) fn nats_settings(config: &Config) -> Result<Option<client::ConnectSettings>, Failure> {
    let Some(webhooks) = &config.webhooks else { return Ok(None) };
    let settings = connect::nats_settings(&config.nats)?;
    if webhooks.nats_url.is_none() && webhooks.nats_credentials_file.is_none() {
        return Ok(Some(settings));
    }
    Ok(Some(client::ConnectSettings {
        url: webhooks.nats_url.clone().unwrap_or(settings.url),
        credentials_file: webhooks.nats_credentials_file.clone(),
        user: None,
        password_file: None,
        nkey_file: None,
        ..settings
    }))
}

async fn open(link: &Link, streams: &Nats) -> Result<SubmitClient, String> {
    let connection = link.connect(None).await.map_err(|error| error.to_string())?;
    let intake =
        SubmitClient::listen(Api::new(&connection), &streams.stream, &streams.receipts_stream, RECEIPTS).await?;
    Ok(intake.reading_back())
}
