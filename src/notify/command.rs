//! `ledgerd notify`: lists the targets of notifications, sends a test to one, and retries what was given up.

use crate::clock::unix_ns;
use crate::command::{Exit, Failure, connect, output};
use crate::config::{Config, NotifyTarget};
use crate::notify::sender::{Sender, Verdict};
use crate::notify::sources::Notification;
use crate::notify::store;
use crate::query::notifications::{Target, targets};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(crate) struct NotifyArguments {
    #[command(subcommand)]
    command: NotifyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum NotifyCommand {
    /// List the targets: what each was told, what waits, and why
    List,
    /// Send a signed notification of the type `test` to a target of the settings, and print its answer
    Test {
        /// The target's name
        name: String,
    },
    /// Enable a target again that answered 410 Gone, and try once more what was given up
    Retry {
        /// The target's name
        name: String,
    },
}

pub(crate) async fn run(config: &Config, arguments: &NotifyArguments, as_json: bool) -> Result<(), Failure> {
    match &arguments.command {
        NotifyCommand::List => list(config, as_json).await,
        NotifyCommand::Test { name } => test(config, name, as_json).await,
        NotifyCommand::Retry { name } => retry(config, name, as_json).await,
    }
}

async fn list(config: &Config, as_json: bool) -> Result<(), Failure> {
    let targets = targets(&connect::reader(config, 1)?, None).await?;
    let unknown = |target: &&NotifyTarget| targets.iter().all(|known| known.name != target.name);
    let unknown: Vec<&NotifyTarget> = config.notify.iter().filter(unknown).collect();
    if as_json {
        let unknown: Vec<&str> = unknown.iter().map(|target| target.name.as_str()).collect();
        output::json(&json!({ "targets": targets, "not_registered": unknown }));
        return Ok(());
    }
    if targets.is_empty() && unknown.is_empty() {
        output::line("no target: [[notify]] in the settings makes one (docs/webhooks.md)");
    } else {
        let [name, state, waiting, delivered, given_up] = ["target", "state", "waiting", "delivered", "given up"];
        output::line(format_args!("{name:<24}{state:<12}{waiting:>9}{delivered:>11}{given_up:>10}  last success"));
        targets.iter().for_each(show);
    }
    for target in unknown {
        output::line(format_args!("{:<24}not registered: the daemon has not read this setting yet", target.name));
    }
    Ok(())
}

fn show(target: &Target) {
    let Target { name, state, waiting, delivered, given_up, .. } = target;
    let last = target.last_success_at.as_deref().unwrap_or("never");
    output::line(format_args!("{name:<24}{state:<12}{waiting:>9}{delivered:>11}{given_up:>10}  {last}"));
    let positions = target.positions.join(", ");
    output::line(format_args!("    {} at {}; told up to {positions}", target.events.join(", "), target.host));
    if let (Some(at), Some(why)) = (&target.last_failure_at, &target.last_failure) {
        output::line(format_args!("    last failure {at}: {}", output::safe(why)));
    }
    if state == "disabled" {
        output::line(format_args!("    it answered 410 Gone: `ledgerd notify retry {name}` enables it again"));
    }
}

async fn test(config: &Config, name: &str, as_json: bool) -> Result<(), Failure> {
    let target = config.notify.iter().find(|target| target.name == name).ok_or_else(|| {
        let names: Vec<&str> = config.notify.iter().map(|target| target.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Failure::new(Exit::Usage, format!("the settings have no target {name}; they have {names}"))
    })?;
    let sender = Sender::new().map_err(|why| Failure::new(Exit::Failed, why))?;
    let notification = Notification::test(name, unix_ns() / 1000);
    let attempt = sender.send(target, &notification).await;
    let accepted = attempt.verdict == Verdict::Accepted;
    let (answer, took_ms) = (output::safe(&attempt.answer), attempt.took.as_millis());
    if as_json {
        let id = notification.webhook_id();
        output::json(
            &json!({ "webhook_id": id, "accepted": accepted, "answer": answer, "took_ms": u64::try_from(took_ms).unwrap_or(0) }),
        );
    } else {
        output::line(format_args!("{name} answered within {took_ms} ms: {answer}"));
    }
    if accepted { Ok(()) } else { Err(Failure::new(Exit::Failed, format!("{name} does not accept notifications"))) }
}

async fn retry(config: &Config, name: &str, as_json: bool) -> Result<(), Failure> {
    let retried = store::retry(&connect::database(config, 1)?, name).await?;
    let retried = retried.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("there is no target {name}: `ledgerd notify list` shows them"))
    })?;
    if as_json {
        output::json(&json!({ "target": name, "retried": retried }));
    } else {
        output::line(format_args!("{name} is enabled, and the daemon tries {retried} notifications once more"));
    }
    Ok(())
}
