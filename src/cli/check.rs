//! `ledgerd check`: inspects both servers, and reports the result of each check on a line of its own.

mod access;

use crate::command::{Exit, Failure, connect, output, rules};
use crate::config::{Change, Config, Profile};
use crate::nats::api::{Api, ApiError};
use crate::nats::definitions::{Names, captures_dead_letters};
use crate::nats::setup::{Mode, SetupOutcome, setup};
use crate::postgres::connections::Connections;
use crate::postgres::{reads, schema};
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Ok,
    Warning,
    Bad,
}

#[derive(Default)]
struct CheckReport(Vec<(Mark, String)>);

impl CheckReport {
    fn ok(&mut self, text: impl Into<String>) {
        self.0.push((Mark::Ok, text.into()));
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.0.push((Mark::Warning, text.into()));
    }

    fn bad(&mut self, text: impl Into<String>) {
        self.0.push((Mark::Bad, text.into()));
    }

    fn profile(&mut self, config: &Config) {
        let Profile { name, changes } = &config.profile;
        self.ok(format!("profile: {name}{}", if changes.is_empty() { ": no default is changed" } else { "" }));
        for Change { key, default, overridden } in changes {
            let written = overridden.as_ref().map(|value| format!("; you wrote {value}, which counts"));
            self.ok(format!("profile: {key} = {default}{}", written.unwrap_or_default()));
        }
    }

    fn expect(&mut self, good: bool, yes: impl Into<String>, no: impl Into<String>) {
        if good { self.ok(yes) } else { self.bad(no) }
    }
}

pub(crate) async fn run(config: &Config, as_json: bool) -> Result<(), Failure> {
    let mut report = CheckReport::default();
    report.profile(config);
    match rules::load(config) {
        Ok(rules) => report.ok(format!("rules: {} actors, {} actions", rules.agents.len(), rules.registry.len())),
        Err(why) => report.bad(format!("rules: {why}")),
    }
    let writers = &config.judging.writers;
    if writers.usage_is_open() {
        report.warn("usage: every registered actor may report tool usage for any agent_id: set usage.agents_file, or list usage.reporters");
    } else if config.registry.usage_agents.is_none() && writers.usage_reporters.is_empty() {
        report.ok("usage: an agent reports tool usage on ledger.USAGE.{agent_id} alone: neither usage.agents_file nor usage.reporters is set".to_owned());
    }
    let connections = connect::database(config, 1)?;
    let mut unavailable = false;
    if let Err(failure) = check_postgres(&connections, &mut report).await {
        unavailable |= failure.exit == Exit::Unavailable;
        report.bad(failure.what);
    }
    match connect::nats(config).await {
        Ok(api) => {
            if let Err(failure) = Box::pin(check_nats(config, &api, &connections, &mut report)).await {
                unavailable |= failure.exit == Exit::Unavailable;
                report.bad(failure.what);
            }
        }
        Err(failure) => {
            unavailable |= failure.exit == Exit::Unavailable;
            report.bad(failure.what);
        }
    }
    print(&report, as_json);
    let bad = report.0.iter().filter(|(mark, _)| *mark == Mark::Bad).count();
    match bad {
        0 => Ok(()),
        _ if unavailable => Err(Failure::new(Exit::Unavailable, format!("{bad} of {} checks failed", report.0.len()))),
        _ => Err(Failure::new(Exit::Difference, format!("{bad} of {} checks failed", report.0.len()))),
    }
}

fn print(report: &CheckReport, as_json: bool) {
    let name = |mark: Mark| match mark {
        Mark::Ok => "ok",
        Mark::Warning => "warning",
        Mark::Bad => "bad",
    };
    if as_json {
        let lines: Vec<Value> =
            report.0.iter().map(|(mark, text)| json!({ "result": name(*mark), "text": text })).collect();
        return output::json(&Value::Array(lines));
    }
    for (mark, text) in &report.0 {
        output::line(format_args!("{:<8} {text}", name(*mark)));
    }
}

/// `server_version_num` of PostgreSQL 15.
const POSTGRES_VERSION_MIN: i32 = 150_000;
/// A clock that differs by more makes ages and times in the ledger hard to read together.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(1);

async fn check_postgres(connections: &Connections, report: &mut CheckReport) -> Result<(), Failure> {
    let facts = reads::server_facts(connections).await?;
    report.expect(
        facts.version_number >= POSTGRES_VERSION_MIN,
        format!("PostgreSQL {}, as {}", facts.version, facts.role),
        format!("PostgreSQL {} is too old: 15 or newer is needed", facts.version),
    );
    report.expect(
        facts.encoding == "UTF8",
        "PostgreSQL: encoding UTF8",
        format!("PostgreSQL: the encoding is {}, and must be UTF8", facts.encoding),
    );
    report.expect(
        !facts.is_read_only,
        "PostgreSQL: takes writes",
        "PostgreSQL: takes no writes (a standby, or default_transaction_read_only)",
    );
    report.expect(
        facts.fsync == "on",
        "PostgreSQL: fsync is on",
        "PostgreSQL: fsync is off: a crash of the machine loses acknowledged records",
    );
    if facts.full_page_writes != "on" {
        report.warn("PostgreSQL: full_page_writes is off: safe only on file systems that never tear a page");
    }
    if facts.synchronous_commit == "off" {
        report.warn("PostgreSQL: synchronous_commit is off; the daemon turns it on for its own sessions");
    }
    if facts.is_superuser {
        report.warn(format!(
            "PostgreSQL: {} is a superuser, whom no grant binds: give the daemon a role of its own",
            facts.role
        ));
    }
    check_clock("PostgreSQL", facts.clock_ns, report);
    match schema::state(connections).await?.complaint() {
        Some(complaint) => {
            report.bad(format!("schema: {complaint}"));
            return Ok(());
        }
        None => report.ok("schema: as this program expects"),
    }
    access::check(connections, &facts, report).await
}

fn check_clock(server: &str, clock_ns: i64, report: &mut CheckReport) {
    let ours = crate::clock::since_1970();
    let difference = Duration::from_nanos(u64::try_from(clock_ns).unwrap_or(0)).abs_diff(ours);
    if difference > CLOCK_DIFFERENCE_MAX {
        report.warn(format!("{server}: its clock differs from this machine's by {:.1} s", difference.as_secs_f64()));
    } else {
        report.ok(format!("{server}: its clock agrees with this machine's"));
    }
}

async fn check_nats(
    config: &Config,
    api: &Api,
    connections: &Connections,
    report: &mut CheckReport,
) -> Result<(), Failure> {
    report.ok(format!("nats-server {}", api.client().server_info().version));
    for item in setup(api, &Names::from(&config.nats), &config.lanes, Mode::Look).await? {
        match &item.outcome {
            SetupOutcome::Unchanged => report.ok(format!("{}: as in nats/", item.name)),
            SetupOutcome::Missing if item.name.starts_with("consumer ") => {
                report.ok(format!("{}: not there; it is made when its lane is read", item.name));
            }
            SetupOutcome::Missing => report.bad(format!("{}: missing: run `ledgerd setup`", item.name)),
            SetupOutcome::Differs(drift) | SetupOutcome::Applied(drift) => {
                for drift in drift {
                    if drift.dangerous { report.bad(drift.to_string()) } else { report.warn(drift.to_string()) }
                }
            }
            SetupOutcome::Created => {}
        }
    }
    check_overlap(config, api, report).await?;
    Box::pin(check_retention(config, api, connections, report)).await
}

/// A dead letter that the ledger's own stream captured would be judged, rejected and published again, for ever.
async fn check_overlap(config: &Config, api: &Api, report: &mut CheckReport) -> Result<(), Failure> {
    let subjects = api.stream_info(&config.nats.stream).await?.config.subjects;
    report.expect(
        !captures_dead_letters(&subjects),
        format!("dead letters: the stream {} does not capture them", config.nats.stream),
        format!("dead letters: the stream {} captures them with its subjects {subjects:?}", config.nats.stream),
    );
    Ok(())
}

/// Looks whether the stream can lose what was not acknowledged yet.
async fn check_retention(
    config: &Config,
    api: &Api,
    connections: &Connections,
    report: &mut CheckReport,
) -> Result<(), Failure> {
    let info = api.stream_info(&config.nats.stream).await?;
    let names = Names::from(&config.nats);
    let last = i64::try_from(info.state.last_sequence).unwrap_or(i64::MAX);
    for position in connect::positions(config)?.all(&config.nats.stream).await? {
        if position.sequence > last {
            report.bad(format!(
                "stream {}: {} is stored up to sequence {}, and the stream ends at {last}: it lost messages or was restored",
                config.nats.stream, position.lane, position.sequence
            ));
        }
    }
    let mut backlog = 0;
    for &lane in &config.lanes {
        match api.consumer_info(&config.nats.stream, &names.consumer(lane)).await {
            Ok(consumer) => backlog += consumer.num_pending + consumer.num_ack_pending as u64,
            // It is made when the lane is read, and its absence was told above.
            Err(ApiError::ConsumerNotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let max_age = info.config.max_age;
    if max_age.is_zero() {
        report.ok(format!("retention: nothing expires by age; {backlog} messages are not stored yet"));
    } else if backlog > 0 {
        report.warn(format!(
            "retention: {backlog} messages are not stored yet, and expire at an age of {} s",
            max_age.as_secs()
        ));
    } else {
        report.ok("retention: everything in the stream is stored");
    }
    let unpublished = reads::unpublished(connections).await?;
    if unpublished > 0 {
        report.warn(format!("dead letters: {unpublished} are not published yet"));
    }
    Ok(())
}
