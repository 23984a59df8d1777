//! The timeline of the console, of its API and of `ledgerd log`: what is on it, and how it is filtered, paged, exported and followed.

use crate::support::console::Console;
use crate::support::daemon::{ledgerd, program, spawn_ledgerd, text_of};
use crate::support::events::{bad_events, good_events, next_event};
use crate::support::ledger::check_ledger;
use crate::support::process::scratch_folder;
use crate::support::published::Published;
use crate::support::signed::fill;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Records of every lane and rejects of every reason, in the ledger.
async fn world_of_everything() -> (World, Published) {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(60)).await;
    published.publish_all(&world.publisher, bad_events()).await;
    let again = next_event("EXEC");
    published.publish(&world.publisher, again.good()).await;
    published.publish(&world.publisher, again.again()).await;
    check_ledger(&world, &published).await;
    (world, published)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// All lines that a filter lets pass, page by page.
async fn paged(console: &Console, filter: &str, limit: usize) -> Vec<Value> {
    let (mut lines, mut cursor): (Vec<Value>, _) = (Vec::new(), String::new());
    for _ in 0..1000 {
        let page = console.api(&format!("/timeline?{filter}&limit={limit}&cursor={}", encoded(&cursor))).await;
        let found = page["lines"].as_array().expect("lines");
        assert!(found.len() <= limit, "{page}");
        lines.extend(found.iter().cloned());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return lines,
        }
    }
    panic!("{filter}: no page is the last one");
}

fn leaves(lines: &[Value]) -> Vec<i64> {
    lines.iter().map(|line| line["leaf_index"].as_i64().expect("a leaf")).collect()
}

fn set(leaves: Vec<i64>) -> BTreeSet<i64> {
    leaves.into_iter().collect()
}

#[tokio::test]
async fn pages_show_each_record_and_each_reject_once_and_the_newest_first() {
    let (world, published) = world_of_everything().await;
    let console = Console::start(&world.environment).await;
    let expected = world.database.count("select count(*) from ledger.entry where disposition <> 'duplicate'").await;
    for limit in [1, 7, 500] {
        let lines = paged(&console, "", limit).await;
        let found = leaves(&lines);
        assert_eq!(found.len(), set(found.clone()).len(), "a line is shown twice");
        assert_eq!(i64::try_from(found.len()).expect("few"), expected, "limit {limit}");
        let rejected = lines.iter().filter(|line| line["outcome"] == "rejected").count();
        assert_eq!(rejected, published.bad(), "rejects stand among the records");
    }
    let lines = paged(&console, "", 500).await;
    let times: Vec<&str> = lines.iter().map(|line| line["time"].as_str().expect("a time")).collect();
    let mut sorted = times.clone();
    sorted.sort_by_key(|time| std::cmp::Reverse(jiff_of(time)));
    assert_eq!(times, sorted);
    let kinds: BTreeSet<&str> = lines.iter().map(|line| line["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, BTreeSet::from(["event", "token_usage", "decision_trail", "metric", "tool_use"]));
}

/// A time in UTC as something that compares: with or without a fraction.
fn jiff_of(time: &str) -> String {
    let (second, fraction) = time.trim_end_matches('Z').split_once('.').unwrap_or((time.trim_end_matches('Z'), ""));
    format!("{second}.{fraction:0<9}")
}

#[tokio::test]
async fn each_filter_lets_pass_what_it_says_and_nothing_else() {
    let (world, _) = world_of_everything().await;
    let console = Console::start(&world.environment).await;
    let all = paged(&console, "", 500).await;
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let mut checked = 0;
    for (name, field) in [("actor", "actor"), ("lane", "lane"), ("outcome", "outcome"), ("task", "task_id")] {
        let values: BTreeSet<String> = all.iter().map(|line| text(line, field)).filter(|it| !it.is_empty()).collect();
        assert!(!values.is_empty(), "{name}");
        for value in values {
            // A task's decision trails stand on its own page.
            let is_shown = |line: &&Value| {
                text(line, field) == value && (name != "task" || text(line, "kind") != "decision_trail")
            };
            let expected: Vec<Value> = all.iter().filter(is_shown).cloned().collect();
            let found = paged(&console, &format!("{name}={}", encoded(&value)), 3).await;
            assert_eq!(set(leaves(&found)), set(leaves(&expected)), "{name}={value}");
            assert_eq!(found.len(), expected.len(), "{name}={value}");
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked}");
    let times: Vec<String> = all.iter().map(|line| text(line, "time")).collect();
    let (newest, oldest) = (&times[5], &times[times.len() - 5]);
    for lane in ["", "EXEC", "TOKENS", "METRIC"] {
        let between = format!("since={}&until={}&lane={lane}", encoded(oldest), encoded(newest));
        let expected = all.iter().filter(|line| {
            let time = jiff_of(&text(line, "time"));
            time >= jiff_of(oldest) && time < jiff_of(newest) && (lane.is_empty() || text(line, "lane") == lane)
        });
        let expected: Vec<Value> = expected.cloned().collect();
        assert_eq!(set(leaves(&paged(&console, &between, 4).await)), set(leaves(&expected)), "{between}");
    }
    for (filter, admits) in [
        ("actor=BRM-CTO&outcome=rejected", ["actor", "BRM-CTO", "outcome", "rejected"]),
        ("lane=EXEC&outcome=SUCCESS", ["lane", "EXEC", "outcome", "SUCCESS"]),
        ("lane=EXEC&outcome=rejected", ["lane", "EXEC", "outcome", "rejected"]),
        ("actor=RXY-CEO&lane=VOTE", ["actor", "RXY-CEO", "lane", "VOTE"]),
        ("lane=TOOL&outcome=DENIED_NEEDS_ARCHITECT", ["lane", "TOOL", "outcome", "DENIED_NEEDS_ARCHITECT"]),
        ("actor=RXY-CEO&lane=TOKENS", ["actor", "RXY-CEO", "lane", "TOKENS"]),
    ] {
        let [one, one_is, other, other_is] = admits;
        let expected: Vec<Value> =
            all.iter().filter(|line| text(line, one) == one_is && text(line, other) == other_is).cloned().collect();
        assert!(!expected.is_empty(), "{filter}");
        assert_eq!(set(leaves(&paged(&console, filter, 2).await)), set(leaves(&expected)), "{filter}");
    }
}

#[tokio::test]
async fn what_is_no_filter_is_refused_with_the_field_that_is_wrong() {
    let world = World::start().await;
    let console = Console::start(&world.environment).await;
    for (query, field) in [
        ("since=yesterday", "since"),
        ("until=2026-02-30", "until"),
        ("cursor=x", "cursor"),
        ("limit=501", "limit"),
        ("limit=many", "limit"),
        ("actor=a%00b", "actor"),
        (&format!("task={}", "x".repeat(400)), "task"),
    ] {
        let answer = console.get(&format!("/api/v1/timeline?{query}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (400, "application/problem+json"), "{query}");
        assert!(answer.text().contains(field), "{query}: {}", answer.text());
        assert_eq!(console.get(&format!("/timeline?{query}")).await.status, 400, "{query}");
    }
}

/// A connection on which a stream of events comes in.
struct Events(BufReader<TcpStream>);

impl Events {
    /// Opens it, and gives the status of the answer and its headers.
    async fn open(console: &Console, path: &str) -> (Self, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", console.port())).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it takes requests");
        let mut events = Self(BufReader::new(stream));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push_str(&events.line().await);
        }
        (events, head)
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(SOON, self.0.read_line(&mut line)).await.expect("it says something").expect("the connection holds");
        line
    }

    /// The data of the next event `line`.
    async fn data(&mut self) -> String {
        loop {
            if let Some(data) = self.line().await.strip_prefix("data: ") {
                return data.trim_end().to_owned();
            }
        }
    }
}

#[tokio::test]
async fn a_line_arrives_as_soon_as_it_is_committed_and_passes_the_filter() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let console = Console::start(&world.environment).await;
    let (mut all, head) = Events::open(&console, "/api/v1/live").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
    let (mut votes, _) = Events::open(&console, "/timeline/live?lane=VOTE").await;

    let mut published = Published::default();
    let (event, vote, reject) = (next_event("EXEC"), next_event("VOTE"), next_event("EXEC").with("outcome", "X"));
    published.publish(&world.publisher, event.good()).await;
    let line: Value = serde_json::from_str(&all.data().await).expect("JSON");
    assert_eq!((&line["record_id"], &line["lane"]), (&json!(event.event_id()), &json!("EXEC")));
    published.publish(&world.publisher, reject.bad("outcome_not_allowed")).await;
    let line: Value = serde_json::from_str(&all.data().await).expect("JSON");
    assert_eq!((&line["outcome"], &line["reason"]), (&json!("rejected"), &json!("outcome_not_allowed")));

    published.publish(&world.publisher, vote.good()).await;
    let row = votes.data().await;
    assert!(row.starts_with("<tr") && row.contains("VOTE_RECORDED"), "{row}");

    // Whoever comes later and says what it has seen misses nothing.
    check_ledger(&world, &published).await;
    let (mut late, _) = Events::open(&console, "/api/v1/live?from=1&outcome=rejected").await;
    let line: Value = serde_json::from_str(&late.data().await).expect("JSON");
    assert_eq!(line["reason"], "outcome_not_allowed");
}

#[tokio::test]
async fn many_streams_delay_nobody_and_end_when_the_console_is_told_to_stop() {
    let world = World::start().await;
    let mut console = Console::start(&world.environment).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        let (events, head) = Events::open(&console, "/api/v1/live").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        streams.push(events);
    }
    for _ in 0..800 {
        let (_, head) = Events::open(&console, "/api/v1/live").await;
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: "), "{head}");
    }
    console.page("/timeline").await;
    streams.pop();
    eventually("a place is free again", SOON, async || {
        let (_, head) = Events::open(&console, "/api/v1/live").await;
        when(head.starts_with("HTTP/1.1 200"), || head)
    })
    .await;
    console.sigterm();
    assert_eq!(console.wait_exit().await, 0);
}

#[tokio::test]
async fn the_command_log_prints_what_the_console_shows() {
    let (world, _) = world_of_everything().await;
    let console = Console::start(&world.environment).await;
    for (filter, arguments) in [
        ("", &[][..]),
        ("actor=RXY-CEO", &["--actor", "RXY-CEO"]),
        ("outcome=rejected", &["--outcome", "rejected"]),
        (
            "lane=EXEC&since=2026-02-20&until=2026-02-21",
            &["--lane", "EXEC", "--since", "2026-02-20", "--until", "2026-02-21"],
        ),
    ] {
        let expected = paged(&console, filter, 500).await;
        let arguments = [&["--json", "log", "--limit", "1000"], arguments].concat();
        let printed = world.ledgerd_ok(&arguments).await;
        let lines: Vec<Value> =
            printed.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
        assert_eq!(lines, expected, "{filter}");
    }
    let printed = world.ledgerd_ok(&["log", "--limit", "3"]).await;
    assert_eq!(printed.lines().count(), 3, "{printed}");
    let wrong = world.ledgerd(&["log", "--since", "yesterday"]).await;
    assert_eq!(wrong.status.code(), Some(64), "{}", text_of(&wrong));
    assert!(text_of(&wrong).contains("since is neither a day"), "{}", text_of(&wrong));
}

#[tokio::test]
async fn the_command_log_goes_on_with_what_is_committed() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let (before, after) = (next_event("EXEC"), next_event("EXEC"));
    published.publish(&world.publisher, before.good()).await;
    check_ledger(&world, &published).await;
    let folder = scratch_folder("follow");
    let path = folder.path().join("log");
    let following = spawn_ledgerd(&["log", "--follow", "--lane", "EXEC"], &world.operator, &path);
    let prints = async |id: &str| {
        eventually("the line is printed", SOON, || {
            let printed = following.log();
            async move { when(printed.contains(id), || printed) }
        })
        .await;
    };
    prints(before.event_id()).await;
    let vote = next_event("VOTE");
    published.publish(&world.publisher, vote.good()).await;
    published.publish(&world.publisher, after.good()).await;
    prints(after.event_id()).await;
    assert!(!following.log().contains(vote.event_id()), "{}", following.log());
}

#[tokio::test]
async fn a_reader_that_leaves_ends_no_command_with_a_panic() {
    let (world, _) = world_of_everything().await;
    for arguments in
        [&["log", "--limit", "1000"][..], &["dlq", "list"], &["completions", "bash"], &["man"], &["--json", "log"]]
    {
        let mut command = program(arguments, &world.operator);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

/// Texts that would be something else than text: markup, a formula, the end of a field.
const HOSTILE: &str = "=HYPERLINK(\"http://x\"),'<script>alert(1)</script>\"><img src=x onerror=alert(1)>";

#[tokio::test]
async fn what_an_agent_wrote_is_text_wherever_it_is_shown() {
    let world = World::builder().env("LEDGERD__PROFILE", "hegemon").start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let details = json!({"proposal_id": HOSTILE, "council_vote_ref": HOSTILE, "votes": {HOSTILE: HOSTILE}});
    let event = next_event("CORP")
        .with("event_id", format!("CORP-{HOSTILE}"))
        .with("task_id", HOSTILE)
        .with("details", details);
    world.publisher.publish(&event.subject(), event.payload()).await;
    let usage = next_event("TOKENS").with("task_id", HOSTILE).with("usage_id", HOSTILE);
    published.publish(&world.publisher, usage.good()).await;
    let reject = next_event("EXEC").with("event_id", format!("EXEC-{HOSTILE}")).with("outcome", HOSTILE);
    published.publish(&world.publisher, reject.bad("outcome_not_allowed")).await;
    eventually("three entries are there", SOON, async || {
        let sql =
            "select count(*) from ledger.entry where epoch = (select epoch from ledger.epoch where stream = 'LEDGER')";
        let entries = world.database.count(sql).await;
        when(entries == 3, || format!("{entries}"))
    })
    .await;
    let console = Console::start(&world.environment).await;
    let hostile = encoded(HOSTILE);
    let addresses = [
        "/timeline".to_owned(),
        format!("/timeline?task={hostile}"),
        format!("/timeline?actor={hostile}&lane={hostile}&outcome={hostile}"),
        format!("/task/{hostile}"),
        format!("/proposal/{hostile}"),
        format!("/search?q={hostile}"),
        format!("/search?q={hostile}x"),
        format!("/task/{hostile}x"),
    ];
    for address in addresses {
        let page = console.get(&address).await.text();
        assert!(page.contains("&lt;script&gt;"), "{address} shows it: {page}");
        assert!(!page.contains("<script>") && !page.contains("<img"), "{address}: {page}");
        assert!(!page.contains(" style="), "{address}: {page}");
    }
    let file = console.get("/timeline.csv").await;
    assert_eq!(file.header("content-type"), "text/csv; charset=utf-8");
    let quoted = format!("\"'{}\"", HOSTILE.replace('"', "\"\""));
    assert!(file.text().contains(&quoted), "{}", file.text());
    for line in file.text().lines() {
        assert!(!line.contains(",=") && !line.starts_with('='), "{line}");
    }
}

#[tokio::test]
async fn a_reader_may_ask_everything_and_needs_no_more() {
    let world = World::builder().group_roles().start().await;
    let daemon = world.daemon().await;
    let mut published = Published::default();
    published.publish_all(&world.publisher, good_events(30)).await;
    check_ledger(&world, &published).await;
    drop(daemon);
    let reader = world.database.create_role("reader").await;
    world.database.execute(&format!("grant ledgerd_reader to {reader}")).await;
    let mut environment = world.environment.clone();
    environment
        .insert("LEDGERD__CONSOLE__DATABASE_URL".to_owned(), world.cluster().url_as(world.database.name(), &reader));
    let console = Console::start(&environment).await;
    // The migrations are recorded, too.
    assert_eq!(paged(&console, "lane=SYS", 100).await.len() + 28, paged(&console, "", 100).await.len());
    for path in ["/search?q=SRN-TEL-1", "/task/T-1", "/proposal/SRN-TEL-1", "/timeline.csv"] {
        assert!([200, 303].contains(&console.get(path).await.status), "{path}");
    }
    let output = ledgerd(&["log", "--limit", "5"], &environment).await;
    assert!(output.status.success(), "{}", text_of(&output));
}

#[tokio::test]
async fn no_question_goes_through_a_table_that_grows() {
    const ROWS: u64 = 20_000;
    let world = World::builder().without_streams().start().await;
    fill(&world.database, ROWS).await;
    let others = "
        set session_replication_role = replica;
        insert into ledger.token_usage (agent_name, usage_id, usage_id_given, date, tokens_input, tokens_output, cost_usd, cost_given, task_id)
            select 'A-' || n % 20, 'U-' || n, true, date '2026-01-01' + n / 100, 1, 1, 1, true, 'T-' || n / 7 from generate_series(1, 20000) as n;
        insert into public.decision_trails (trail_id, council_vote, proposal, outcome)
            select 'TRAIL-' || n, '{}', jsonb_build_object('proposal_id', 'P-' || n, 'task_id', 'T-' || n), 'APPROVED'
            from generate_series(1, 20000) as n;
        insert into public.economic_metrics (metric_key, metric_value) select 'K-' || n, 1 from generate_series(1, 20000) as n;
        insert into ledger.dead_letter (leaf_index, reason, detail, dlq_subject, rejected_at)
            select n, 'conflict', 'x', 'dlq.ledger.SYS.A-' || n % 20 || '.' || n, timestamptz '2026-01-01' + n * interval '1 minute'
            from generate_series(0, 19999) as n;
        insert into public.audit_events (event_id, actor, action, outcome, details, task_id, timestamp, integrity_hash, timestamp_text)
            select 'EXEC-' || n, 'A-' || n % 20, 'X', case when n % 10 = 0 then 'FAILURE' else 'SUCCESS' end,
                jsonb_build_object('proposal_id', 'P-' || n), 'T-' || n / 7, timestamp '2026-01-01' + n * interval '1 minute', 'x', 'x'
            from generate_series(1, 20000) as n;
        analyze;
        select pg_stat_force_next_flush()";
    world.database.execute(others).await;
    let tables = [
        ("ledger", "batch"),
        ("ledger", "token_usage"),
        ("ledger", "dead_letter"),
        ("public", "audit_events"),
        ("public", "decision_trails"),
        ("public", "economic_metrics"),
    ];
    // Counted when every session has ended, so also what this asks for itself.
    let read = async || {
        world.database.read_in_full("batch").await;
        let mut counts = Vec::new();
        for (schema, table) in tables {
            let sql = format!(
                "select coalesce(seq_tup_read, 0) from pg_stat_user_tables where schemaname = '{schema}' and relname = '{table}'"
            );
            counts.push(world.database.count(&sql).await);
        }
        counts
    };
    let before = read().await;
    let console = Console::start(&world.environment).await;
    let filters = [
        "",
        "actor=A-3",
        "actor=nobody",
        "task=T-100",
        "task=none",
        "lane=SYS",
        "lane=EXEC",
        "lane=TOKENS",
        "lane=CORP",
        "outcome=FAILURE",
        "outcome=SUCCESS",
        "outcome=BLOCKED",
        "outcome=rejected",
        "outcome=recorded",
        "since=2026-01-05&until=2026-01-06",
        "actor=A-3&since=2026-01-05&until=2026-01-06",
        "lane=EXEC&outcome=FAILURE",
        "actor=A-3&outcome=rejected",
        "lane=TOKENS&actor=A-3",
    ];
    for filter in filters {
        console.page(&format!("/timeline?{filter}")).await;
    }
    for query in [
        "EXEC-5",
        "T-100",
        "P-77",
        "TRAIL-5",
        "U-9",
        "K-3",
        "17",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "A-3",
        "nothing",
        "5-17",
    ] {
        console.get(&format!("/search?q={query}")).await;
    }
    for path in ["/task/T-100", "/task/none", "/proposal/P-77", "/proposal/none", "/timeline.csv?actor=A-3"] {
        console.get(path).await;
    }
    drop(console);
    assert_eq!(read().await, before, "a table was read in full: {tables:?}");
}
