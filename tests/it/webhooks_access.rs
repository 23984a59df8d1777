//! Who gets in at the webhooks, in which ways, and what an operator sees of those who do not.

use crate::support::daemon::Daemon;
use crate::support::events::{event, next_event};
use crate::support::http::{HttpAnswer, ask, ask_from};
use crate::support::records::AGENT_ID;
use crate::support::shipped_nats::login;
use crate::support::world::{Builder, World};
use crate::support::{SOON, eventually, when};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::net::Ipv4Addr;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Writes for everybody, for two, and for one each.
const EVERYBODYS: &str = "a-secret-of-everybody";
const TWO_ACTORS: &str = "a-secret-of-two";
const ROXYS: &str = "a-secret-of-roxy";
const VERAS: &str = "a-secret-of-vera";
const AGENTS: &str = "a-secret-of-an-agent";
const NOBODYS: &str = "not-a-token";

const TOKEN_HEADER: &str = "X-Hegemon-Token";
const ACTOR_HEADER: &str = "X-Hegemon-Actor";

/// Each webhook: its path, its name, the lane of a good record, and the author where the record names none.
const WEBHOOKS: [(&str, &str, &str, Option<&str>); 5] = [
    ("/webhook/hegemon-audit-log", "audit", "EXEC", None),
    ("/webhook/hegemon-token-log", "tokens", "TOKENS", None),
    ("/webhook/hegemon-decision-trail", "trails", "TRAIL", Some("RXY-CEO")),
    ("/webhook/hegemon-economic-metric", "metrics", "METRIC", Some("VRA-CFO")),
    // The record names its agent by the UUID, which is an author of its own.
    ("/webhook/hegemon-tool-usage", "usage", "USAGE", None),
];
const AUDIT: &str = WEBHOOKS[0].0;

fn builder() -> Builder {
    let tokens = [
        (EVERYBODYS, "*"),
        (TWO_ACTORS, "WRK-001 WRK-002"),
        (ROXYS, "RXY-CEO"),
        (VERAS, "VRA-CFO"),
        (AGENTS, AGENT_ID),
    ];
    let tokens = tokens.map(|(token, actors)| {
        let hash: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hash} {actors}")
    });
    World::builder().env("LEDGERD__WEBHOOKS__TOKENS", &tokens.join(", "))
}

/// The headers that carry a token: ours, the bearer's, and that of a login in the URL.
fn ways(token: &str) -> [(&'static str, String); 3] {
    [
        (TOKEN_HEADER, token.to_owned()),
        ("Authorization", format!("Bearer {token}")),
        ("Authorization", format!("Basic {}", STANDARD.encode(format!("agents:{token}")))),
    ]
}

async fn post(daemon: &Daemon, path: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpAnswer {
    ask(daemon.http_port(), "POST", path, headers, body).await.unwrap_or_else(|error| panic!("POST {path}: {error}"))
}

fn json(answer: &HttpAnswer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{}: {error}", answer.text()))
}

/// Answered by the receipt of a committed record, once the webhooks are connected.
async fn is_logged(daemon: &Daemon, path: &str, headers: &[(&str, &str)], body: &[u8]) {
    eventually("it is logged", SOON, async || {
        let answer = post(daemon, path, headers, body).await;
        when(answer.status == 200, || format!("{} {}", answer.status, answer.text()))
    })
    .await;
}

#[tokio::test]
async fn each_webhook_fills_its_table_whichever_way_the_token_comes() {
    let world = builder().start().await;
    let daemon = world.daemon().await;
    for (path, _, lane, author) in WEBHOOKS {
        for (name, value) in ways(EVERYBODYS) {
            let mut headers = vec![(name, value.as_str())];
            headers.extend(author.map(|author| (ACTOR_HEADER, author)));
            is_logged(&daemon, path, &headers, &next_event(lane).payload()).await;
        }
    }
    for (table, rows) in [
        ("audit_events where action <> 'SCHEMA_MIGRATION'", 3),
        ("ledger.token_usage", 3),
        ("decision_trails", 3),
        ("economic_metrics", 3),
        ("tool_usage_ledger", 3),
    ] {
        assert_eq!(world.database.count(&format!("select count(*) from {table}")).await, rows, "{table}");
    }
    assert!(world.database.count("select count(*) from token_ledger").await > 0);
}

#[tokio::test]
async fn the_login_of_the_shipped_server_file_may_publish_for_every_webhook() {
    let mut world = builder().shipped_nats().start().await;
    world.environment.insert("LEDGERD__WEBHOOKS__NATS_URL".to_owned(), world.nats().url_of(&login("webhooks")));
    let daemon = world.daemon().await;
    for (path, _, lane, author) in WEBHOOKS {
        let headers = [(TOKEN_HEADER, EVERYBODYS), (ACTOR_HEADER, author.unwrap_or_default())];
        is_logged(&daemon, path, &headers, &next_event(lane).payload()).await;
    }
    assert!(!daemon.log_contains("ermissions"), "{}", daemon.log());
}

#[tokio::test]
async fn a_token_of_one_actor_names_the_author_of_what_names_none() {
    let world = builder().start().await;
    let daemon = world.daemon().await;
    for (path, lane, token) in
        [(WEBHOOKS[2].0, "TRAIL", ROXYS), (WEBHOOKS[3].0, "METRIC", VERAS), (WEBHOOKS[4].0, "USAGE", AGENTS)]
    {
        is_logged(&daemon, path, &[(TOKEN_HEADER, token)], &next_event(lane).payload()).await;
    }
    assert_eq!(world.database.count("select count(*) from economic_metrics where set_by = 'VRA-CFO'").await, 1);
}

#[tokio::test]
async fn whoever_is_refused_is_told_what_to_do_and_nothing_is_published() {
    let world = builder().start().await;
    let daemon = world.daemon().await;
    let too_large = vec![b' '; 300_000];
    for (path, _, lane, _) in WEBHOOKS {
        let body = next_event(lane).payload();
        let mut unknown = vec![vec![]];
        unknown.extend(ways(NOBODYS).map(|way| vec![way]));
        unknown.push(vec![("Authorization", "Basic !".to_owned())]);
        for headers in unknown {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = post(&daemon, path, &headers, &body).await;
            let detail = json(&answer)["detail"].as_str().expect("a sentence").to_owned();
            assert_eq!(answer.status, 401, "{headers:?}: {detail}");
            for way in [TOKEN_HEADER, "Bearer", "Basic", "http://agents:TOKEN@host/webhook/"] {
                assert!(detail.contains(way), "{way}: {detail}");
            }
            assert!(answer.header("www-authenticate").contains("Basic"));
        }

        let headers = [(TOKEN_HEADER, TWO_ACTORS), (ACTOR_HEADER, "RXY-CEO")];
        let answer = post(&daemon, path, &headers, &body).await;
        assert_eq!((answer.status, &json(&answer)["reason"]), (403, &"actor_mismatch".into()), "{}", answer.text());
        assert!(answer.text().contains("webhooks.tokens"), "{}", answer.text());

        let answer = post(&daemon, path, &[(TOKEN_HEADER, TWO_ACTORS)], b"{}").await;
        assert_eq!((answer.status, &json(&answer)["reason"]), (422, &"missing_field".into()), "{}", answer.text());
        assert!(answer.text().contains(ACTOR_HEADER), "{}", answer.text());

        let answer = post(&daemon, path, &[(TOKEN_HEADER, EVERYBODYS)], &too_large).await;
        assert_eq!(answer.status, 413, "{}", answer.text());
        assert!(answer.text().contains("262144"), "{}", answer.text());
    }
    // What would be another subject, or several of them.
    for actor in ["*", ">", "RXY-CEO.x", "RXY CEO"] {
        let answer = post(&daemon, AUDIT, &[(TOKEN_HEADER, EVERYBODYS), (ACTOR_HEADER, actor)], b"{}").await;
        assert_eq!(answer.status, 403, "{actor}");
    }
    assert_eq!(
        world
            .database
            .count("select count(*) from ledger.entry join ledger.epoch using (epoch) where stream = 'LEDGER'")
            .await,
        0
    );
}

#[tokio::test]
async fn a_refusal_is_seen_in_log_metric_and_status() {
    let world = builder().env("LEDGERD__WEBHOOKS__REQUESTS_MAX", "1").start().await;
    let daemon = world.daemon().await;
    let body = event("EXEC", "BRM-CTO", 1).payload();
    for _ in 0..20 {
        assert_eq!(post(&daemon, AUDIT, &[(TOKEN_HEADER, NOBODYS)], &body).await.status, 401);
    }
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let answer = ask_from(other, daemon.http_port(), "POST", WEBHOOKS[4].0, &[], &body).await.expect("an answer");
    assert_eq!(answer.status, 401);
    assert_eq!(post(&daemon, AUDIT, &[(TOKEN_HEADER, ROXYS)], &body).await.status, 403);
    let too_large = vec![b' '; 300_000];
    assert_eq!(post(&daemon, AUDIT, &[(TOKEN_HEADER, ROXYS)], &too_large).await.status, 413);
    let mut slow = TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.http_port())).await.expect("it listens");
    let head = format!("POST {AUDIT} HTTP/1.1\r\nHost: x\r\n{TOKEN_HEADER}: {ROXYS}\r\nContent-Length: 100\r\n\r\n{{");
    slow.write_all(head.as_bytes()).await.expect("it reads");
    eventually("429", SOON, async || {
        let answer = post(&daemon, AUDIT, &[(TOKEN_HEADER, ROXYS)], &body).await;
        when((answer.status, answer.header("retry-after")) == (429, "1"), || answer.text())
    })
    .await;

    for (webhook, code, at_least) in
        [("audit", 401, 20.0), ("usage", 401, 1.0), ("audit", 403, 1.0), ("audit", 413, 1.0), ("audit", 429, 1.0)]
    {
        let labels = format!("webhook=\"{webhook}\",code=\"{code}\"");
        let counted = daemon.metric("ledgerd_webhook_answers_total", &labels).await;
        assert!(counted >= at_least, "{labels}: {counted}");
    }
    let told = daemon.log_lines_matching("was refused: 401");
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("audit by 127.0.0.1") && told[1].contains("usage by 127.0.0.2"), "{told:#?}");
    for code in [403, 413, 429] {
        assert!(!daemon.log_lines_matching(&format!("audit by 127.0.0.1 was refused: {code}")).is_empty(), "{code}");
    }
    for token in [NOBODYS, ROXYS] {
        assert!(!daemon.log_contains(token));
    }

    eventually("status shows all of them", SOON, async || {
        let status: Value = serde_json::from_str(&world.ledgerd_ok(&["status", "--json"]).await).expect("JSON");
        let refused = status["refused"].as_array().expect("a list").clone();
        let calls = |webhook: &str, code: u16, caller: &str| {
            let is_it = |it: &&Value| it["webhook"] == webhook && it["status"] == code && it["caller"] == caller;
            refused.iter().find(is_it).and_then(|it| it["calls"].as_u64())
        };
        let found = [
            calls("audit", 401, "127.0.0.1") == Some(20),
            calls("usage", 401, "127.0.0.2") == Some(1),
            // Once more, perhaps, before the place was taken.
            calls("audit", 403, "127.0.0.1").is_some(),
            calls("audit", 413, "127.0.0.1") == Some(1),
            calls("audit", 429, "127.0.0.1").is_some(),
        ];
        when(found == [true; 5], || format!("{refused:#?}"))
    })
    .await;
    let text = world.ledgerd_ok(&["status"]).await;
    assert!(text.contains("refused by the webhooks") && text.contains("127.0.0.2"), "{text}");
}

#[tokio::test]
async fn refusals_wait_for_a_database_that_is_away_and_delay_no_answer() {
    let world = builder().postgres_proxy().start().await;
    let daemon = world.daemon().await;
    world.postgres_proxy().cut().await;
    let asked = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(post(&daemon, AUDIT, &[], b"{}").await.status, 401);
    }
    assert!(asked.elapsed().as_secs() < 5, "{:?}", asked.elapsed());
    world.postgres_proxy().heal().await;
    eventually("they are written down", SOON, async || {
        let calls = world.database.count("select coalesce(sum(calls), 0)::bigint from ledger.refusal").await;
        when(calls == 10, || calls.to_string())
    })
    .await;
}

#[tokio::test]
async fn the_table_of_refusals_does_not_grow_beyond_its_rows() {
    let world = builder().start().await;
    let daemon = world.daemon().await;
    let fill = "insert into ledger.refusal select slot, 401, 'audit', 'old ' || slot, 1, now() - interval '1 day', now() - interval '1 day' * slot
        from generate_series(1, 256) as slot";
    world.database.execute(fill).await;
    assert_eq!(post(&daemon, AUDIT, &[], b"{}").await.status, 401);
    eventually("the newest replaces the oldest", SOON, async || {
        let told = world.database.count("select count(*) from ledger.refusal where address = '127.0.0.1'").await;
        when(told == 1, || told.to_string())
    })
    .await;
    assert_eq!(world.database.count("select count(*) from ledger.refusal").await, 256);
    assert_eq!(world.database.count("select count(*) from ledger.refusal where address = 'old 256'").await, 0);
}
