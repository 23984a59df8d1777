//! The ceiling: what one connection to PostgreSQL does with the same rows, without NATS, without a hash, without custody.
//! `bench.py` runs it and compares. Each command prints one JSON object.
//!
//! ```text
//! plain insert URL EVENTS    the events, one JSON per line, into the specification's table, in batches of 1,000
//! plain commit URL COUNT     one row and its commit, COUNT times, 500 in a second
//! plain select URL QUERY     reads every row and column of QUERY
//! ```
#![expect(clippy::print_stdout, reason = "a program, not a library")]

use futures_util::TryStreamExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::time::{Duration, Instant};

const BATCH_ROWS: usize = 1_000;
const COMMITS_PER_SECOND: u64 = 500;

const INSERT: &str = "
    insert into audit_events (event_id, actor, action, outcome, details, task_id, timestamp, integrity_hash)
    select event_id, actor, action, outcome, details::jsonb, task_id, timestamp::timestamptz at time zone 'UTC', integrity_hash
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
        as new (event_id, actor, action, outcome, details, task_id, timestamp, integrity_hash)";

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "event_id")]
    id: String,
    actor: String,
    action: String,
    outcome: String,
    details: Option<Box<RawValue>>,
    task_id: Option<String>,
    timestamp: String,
}

/// Columns of one batch, made before the clock starts: the ceiling pays for no parsing.
#[derive(Default)]
struct Columns {
    texts: [Vec<String>; 6],
    details: Vec<Option<String>>,
    task_ids: Vec<Option<String>>,
}

impl Columns {
    fn push(&mut self, line: &str) {
        let event: Event = serde_json::from_str(line).expect("an event in each line");
        // As long as a hash, and as little alike.
        let hash = format!("{:0>64}", event.id.len());
        let texts = [event.id, event.actor, event.action, event.outcome, event.timestamp, hash];
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.push(text);
        }
        self.details.push(event.details.map(|details| details.get().to_owned()));
        self.task_ids.push(event.task_id);
    }

    async fn insert(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let [event_ids, actors, actions, outcomes, timestamps, hashes] = &self.texts;
        let mut transaction = connection.begin().await?;
        sqlx::query(INSERT)
            .bind(event_ids)
            .bind(actors)
            .bind(actions)
            .bind(outcomes)
            .bind(&self.details)
            .bind(&self.task_ids)
            .bind(timestamps)
            .bind(hashes)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

async fn insert(connection: &mut PgConnection, file: &str) -> sqlx::Result<()> {
    let text = std::fs::read_to_string(file).expect("the events can be read");
    let lines: Vec<&str> = text.lines().collect();
    let batches: Vec<Columns> = lines
        .chunks(BATCH_ROWS)
        .map(|lines| {
            let mut columns = Columns::default();
            for line in lines {
                columns.push(line);
            }
            columns
        })
        .collect();
    let started = Instant::now();
    for batch in &batches {
        batch.insert(connection).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{}", serde_json::json!({"rows": lines.len(), "seconds": seconds}));
    Ok(())
}

async fn commit(connection: &mut PgConnection, count: u64) -> sqlx::Result<()> {
    let pause = Duration::from_micros(1_000_000 / COMMITS_PER_SECOND);
    let mut round_trips_ms = Vec::new();
    let started = Instant::now();
    for number in 0..count {
        let due = started + pause * u32::try_from(number).expect("fewer than that");
        tokio::time::sleep_until(due.into()).await;
        let begun = Instant::now();
        sqlx::query(
            "insert into audit_events (event_id, actor, action, outcome, timestamp, integrity_hash)
            values ($1, 'BRM-CTO', 'EXECUTION_STARTED', 'SUCCESS', now(), repeat('0', 64))",
        )
        .bind(format!("COMMIT-{number}"))
        .execute(&mut *connection)
        .await?;
        round_trips_ms.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    println!("{}", serde_json::json!({"milliseconds": round_trips_ms}));
    Ok(())
}

async fn select(connection: &mut PgConnection, query: String) -> sqlx::Result<()> {
    let (started, mut rows) = (Instant::now(), 0_u64);
    let mut stream = connection.fetch(sqlx::query(sqlx::AssertSqlSafe(query)));
    while stream.try_next().await?.is_some() {
        rows += 1;
    }
    println!("{}", serde_json::json!({"rows": rows, "seconds": started.elapsed().as_secs_f64()}));
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> sqlx::Result<()> {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [command, url, what] = arguments.as_slice() else {
        println!("plain insert|commit|select URL EVENTS|COUNT|QUERY; `make bench` runs it");
        return Ok(());
    };
    let mut connection = PgConnection::connect(url).await?;
    match command.as_str() {
        "insert" => insert(&mut connection, what).await,
        "commit" => commit(&mut connection, what.parse().expect("a number of commits")).await,
        "select" => select(&mut connection, what.clone()).await,
        _ => panic!("no such command: {command}"),
    }
}
