//! The console under attack: who gets in, what other sites can cause, and what hostile text does.

use crate::support::console::{Console, FORM, TOKENS, token_entry};
use crate::support::daemon::{Environment, ledgerd, text_of};
use crate::support::events::{Event, next_event};
use crate::support::http::HttpAnswer;
use crate::support::ledger::check_ledger;
use crate::support::port::free_port;
use crate::support::published::Published;
use crate::support::world::World;
use crate::support::{SOON, eventually, when};
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::io::Write as _;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

const READER: &str = "a-token-of-a-reader";
const OPERATOR: &str = "a-token-of-an-operator";

/// Addresses of pages, there or not.
const PAGES: [&str; 7] = ["/", "/timeline", "/money", "/rejects", "/trust", "/record/0", "/nowhere"];

fn with_tokens(environment: &Environment) -> Environment {
    let tokens = [token_entry(READER, "read", "ada"), token_entry(OPERATOR, "operate", "grace")];
    let mut environment = environment.clone();
    environment.insert(TOKENS.to_owned(), tokens.join(","));
    environment
}

/// A console that nobody asks about the record: it needs no daemon.
async fn protected() -> (World, Console) {
    let world = World::start().await;
    let console = Console::start(&with_tokens(&world.environment)).await;
    (world, console)
}

async fn ask_with(console: &Console, path: &str, name: &str, value: &str) -> HttpAnswer {
    console.ask("GET", path, &[(name, value)], b"").await
}

#[tokio::test]
async fn without_a_token_there_is_only_the_page_to_sign_in() {
    let (_world, console) = protected().await;
    for page in PAGES {
        let answer = console.get(page).await;
        let to = format!("/login?next={}", page.replace('/', "%2F"));
        assert_eq!((answer.status, answer.header("location")), (303, to.as_str()), "{page}");
        assert!(answer.body.is_empty(), "{page}");
    }
    for path in
        ["/api/v1/timeline", "/api/v1/openapi.json", "/api/v1/nowhere", "/api/v1/timeline?token=a-token-of-a-reader"]
    {
        let answer = console.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (401, "application/problem+json"), "{path}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{path}");
    }
    for open in ["/login", "/assets/console.css", "/assets/console.js", "/assets/icon.svg"] {
        assert_eq!(console.get(open).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn a_token_lets_in_and_nothing_that_resembles_it() {
    let (_world, console) = protected().await;
    for token in [READER, OPERATOR] {
        for path in ["/timeline", "/api/v1/timeline"] {
            assert_eq!(ask_with(&console, path, "Authorization", &format!("Bearer {token}")).await.status, 200);
            assert_eq!(ask_with(&console, path, "Authorization", &format!("bearer  {token} ")).await.status, 200);
        }
    }
    let hash = token_entry(READER, "", "");
    for wrong in ["Bearer a-token-of-a-reade", "Bearer A-TOKEN-OF-A-READER", &format!("Bearer {}", &hash[..64])] {
        for path in ["/timeline", "/api/v1/timeline"] {
            assert_eq!(ask_with(&console, path, "Authorization", wrong).await.status, 401, "{path}: {wrong}");
        }
    }
    for (name, value) in [
        ("Authorization", "Basic YTphLXRva2VuLW9mLWEtcmVhZGVy"),
        ("Authorization", READER),
        ("Cookie", "ledgerd_session=a-token-of-a-reader"),
        ("Cookie", "ledgerd_session="),
        ("X-Hegemon-Token", READER),
    ] {
        assert_eq!(ask_with(&console, "/api/v1/timeline", name, value).await.status, 401, "{name}: {value}");
    }
    assert!(!console.log().contains("a-token-of"), "{}", console.log());
    assert!(console.log().contains("127.0.0.1 sent"), "a refusal is told: {}", console.log());
}

#[tokio::test]
async fn a_person_signs_in_and_out() {
    let (_world, console) = protected().await;
    let refused = console.ask("POST", "/login", &[FORM], b"token=wrong&next=/money").await;
    assert_eq!(refused.status, 401);
    assert!(refused.text().contains("role=\"alert\"") && refused.text().contains("value=\"/money\""));
    assert_eq!(refused.header("set-cookie"), "");

    let signed_in = console.ask("POST", "/login", &[FORM], format!("token={OPERATOR}").as_bytes()).await;
    let cookie = signed_in.header("set-cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains("Domain"), "{cookie}");
    let over_tls = [FORM, ("Host", "ledger.example"), ("Origin", "https://ledger.example")];
    let signed_in = console.ask("POST", "/login", &over_tls, format!("token={OPERATOR}").as_bytes()).await;
    assert!(signed_in.header("set-cookie").contains("Secure"), "{signed_in:?}");

    let person = console.sign_in(OPERATOR).await;
    let page = person.get("/timeline").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("grace, operate"), "{}", page.text());
    assert_eq!(person.get("/api/v1/timeline").await.status, 200);
    let signed_out = person.send("/timeline", "/logout", "").await;
    assert_eq!((signed_out.status, signed_out.header("location")), (303, "/login"));
    assert!(signed_out.header("set-cookie").contains("Max-Age=0"), "{signed_out:?}");
    assert_eq!(person.get("/timeline").await.status, 303, "the cookie is worth nothing now");
    assert_eq!(person.get("/api/v1/timeline").await.status, 401);
}

#[tokio::test]
async fn a_session_is_never_one_that_somebody_else_chose() {
    let (_world, console) = protected().await;
    let chosen = ("Cookie", "ledgerd_session=0000000000000000000000000000000000000000000000000000000000000000");
    let body = format!("token={READER}&next=/");
    let signed_in = console.ask("POST", "/login", &[FORM, chosen], body.as_bytes()).await;
    assert_eq!(signed_in.status, 303);
    assert!(!signed_in.header("set-cookie").contains("00000000"), "{signed_in:?}");
    assert_eq!(ask_with(&console, "/api/v1/timeline", chosen.0, chosen.1).await.status, 401);

    let first = console.sign_in(READER).await;
    let again = console.ask("POST", "/login", &[FORM, ("Cookie", &first.cookie)], body.as_bytes()).await;
    assert!(!again.header("set-cookie").starts_with(&first.cookie), "{again:?}");
    assert_eq!(first.get("/api/v1/timeline").await.status, 401, "the session before has ended");
}

#[tokio::test]
async fn a_token_that_is_taken_away_ends_its_sessions() {
    let world = World::start().await;
    let file = |tokens: &str| format!("[console]\ntokens = [{tokens}]\n");
    let mut settings = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    let (reader, operator) = (token_entry(READER, "read", "ada"), token_entry(OPERATOR, "operate", "grace"));
    write!(settings, "{}", file(&format!("\"{reader}\", \"{operator}\""))).expect("written");
    let mut console =
        Console::start_with(&["--config", settings.path().to_str().expect("UTF-8")], &world.environment).await;
    let person_cookie = console.sign_in(READER).await.cookie;
    std::fs::write(settings.path(), file(&format!("\"{operator}\""))).expect("written");
    console.sighup();
    eventually("the session is void", SOON, async || {
        let answer = ask_with(&console, "/api/v1/timeline", "Cookie", &person_cookie).await;
        when(answer.status == 401, || format!("{answer:?}"))
    })
    .await;
    assert_eq!(ask_with(&console, "/api/v1/timeline", "Authorization", &format!("Bearer {READER}")).await.status, 401);
    assert_eq!(
        ask_with(&console, "/api/v1/timeline", "Authorization", &format!("Bearer {OPERATOR}")).await.status,
        200
    );

    std::fs::write(settings.path(), file("\"hunter2 read ada\"")).expect("written");
    console.sighup();
    eventually("the log tells of it", SOON, async || when(console.log().contains("stays in force"), || console.log()))
        .await;
    assert!(!console.log().contains("hunter2"));
    assert_eq!(
        ask_with(&console, "/api/v1/timeline", "Authorization", &format!("Bearer {OPERATOR}")).await.status,
        200
    );
}

#[tokio::test]
async fn a_form_of_another_site_or_session_changes_nothing() {
    let (_world, console) = protected().await;
    let person = console.sign_in(OPERATOR).await;
    let other = console.sign_in(OPERATOR).await;
    let key = person.form_key("/timeline").await;
    let of_other = other.form_key("/timeline").await;
    assert_ne!(key, of_other);
    for body in ["", "form_key=", &format!("form_key={of_other}"), &format!("key={key}"), &format!("form_key={key}x")] {
        let answer = person.post("/logout", body).await;
        assert_eq!(answer.status, 403, "{body}: {}", answer.text());
    }
    let good = format!("form_key={key}");
    for foreign in [
        &[("Origin", "https://evil.example")][..],
        &[("Origin", "null")],
        &[("Origin", "http://127.0.0.1:1")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "cross-site"), ("Origin", "http://127.0.0.1")],
    ] {
        let headers = [&[FORM, ("Cookie", &person.cookie)], foreign].concat();
        for (path, status) in [("/logout", 403), ("/login", 403), ("/api/v1/timeline", 403)] {
            let answer = console.ask("POST", path, &headers, good.as_bytes()).await;
            assert_eq!(answer.status, status, "{path} {foreign:?}: {}", answer.text());
        }
    }
    // A program's token is no session, and a person without one is sent away.
    let bearer = format!("Bearer {OPERATOR}");
    let by_program = console.ask("POST", "/logout", &[FORM, ("Authorization", &bearer)], good.as_bytes()).await;
    assert_eq!(by_program.status, 403);
    assert_eq!(console.ask("POST", "/logout", &[FORM], good.as_bytes()).await.status, 303);
    assert_eq!(person.get("/timeline").await.status, 200, "nothing has ended the session");
    let own = [FORM, ("Cookie", &*person.cookie), ("Origin", "http://127.0.0.1"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(console.ask("POST", "/logout", &own, good.as_bytes()).await.status, 303);
}

#[tokio::test]
async fn whoever_guesses_tokens_is_refused_for_a_while() {
    let (_world, console) = protected().await;
    let person = console.sign_in(READER).await;
    let mut refused = 0;
    for n in 0..130 {
        let answer = if n % 2 == 0 {
            console.ask("POST", "/login", &[FORM], format!("token=guess-{n}").as_bytes()).await
        } else {
            ask_with(&console, "/api/v1/timeline", "Authorization", &format!("Bearer guess-{n}")).await
        };
        assert!([401, 429].contains(&answer.status), "{answer:?}");
        refused += usize::from(answer.status == 429);
    }
    assert_eq!(refused, 30);
    let right = console.ask("POST", "/login", &[FORM], format!("token={READER}").as_bytes()).await;
    assert_eq!((right.status, right.header("retry-after")), (429, "60"));
    assert_eq!(person.get("/timeline").await.status, 200, "who was in stays in");
    let told =
        console.log().lines().filter(|line| line.contains("does not list") || line.contains("do not list")).count();
    assert!(told <= 2, "{}", console.log());
    assert!(!console.log().contains("guess-"));
}

#[tokio::test]
async fn nobody_is_sent_to_another_site_after_signing_in() {
    let (_world, console) = protected().await;
    for next in [
        "https://evil.example",
        "//evil.example",
        "/%5Cevil.example",
        "/%09/evil.example",
        "%5C%5Cevil.example",
        "/%0d%0aSet-Cookie:%20a=b",
        "javascript:alert(1)",
        "/%00",
        "%2F%2Fevil.example",
        "/%E2%80%AE",
    ] {
        let answer = console.ask("POST", "/login", &[FORM], format!("token={READER}&next={next}").as_bytes()).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{next}");
        assert_eq!(
            answer.headers.len(),
            console.ask("POST", "/login", &[FORM], format!("token={READER}").as_bytes()).await.headers.len()
        );
        let page = console.page(&format!("/login?next={next}")).await;
        assert!(page.contains("name=\"next\" value=\"/\"") && !page.contains("evil.example"), "{next}: {page}");
    }
    let back = console.get("/timeline?actor=%22%3E%3Cscript%3E&x=//evil.example").await;
    let to = back.header("location").to_owned();
    assert!(to.starts_with("/login?next=%2Ftimeline%3Factor%3D") && !to.contains('<'), "{to}");
    assert!(!console.page(&to).await.contains("<script>"));
}

#[tokio::test]
async fn every_answer_forbids_frames_scripts_and_guesses_of_its_type() {
    let (_world, console) = protected().await;
    let person = console.sign_in(READER).await;
    let mut answers = vec![
        console.get("/timeline").await,
        console.get("/login").await,
        console.get("/assets/console.js").await,
        console.get("/assets/nothing").await,
        console.get("/api/v1/timeline").await,
        console.ask("POST", "/login", &[FORM], b"token=wrong").await,
        console.ask("TRACE", "/timeline", &[], b"").await,
        console.get(&format!("/timeline?actor={}", "x".repeat(10_000))).await,
    ];
    for path in ["/timeline", "/nowhere", "/api/v1/timeline", "/api/v1/nowhere", "/api/v1/openapi.json"] {
        answers.push(person.get(path).await);
    }
    for answer in answers {
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{answer:?}");
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{name}: {answer:?}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), "", "{answer:?}");
        assert!(answer.header("cache-control").contains("no-"), "{answer:?}");
    }
}

#[tokio::test]
async fn no_path_leads_out_of_the_console() {
    let (_world, console) = protected().await;
    let person = console.sign_in(READER).await;
    for path in [
        "/assets/../timeline",
        "/assets/..%2ftimeline",
        "/assets/%2e%2e/timeline",
        "/assets//../../etc/passwd",
        "/assets/..%5c..%5cetc%5cpasswd",
        "/assets/%00",
        "/assets/",
        "/assets/console.css/",
        "/assets/console.css%00.html",
        "//etc/passwd",
        "/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/api/v1/..%2f..%2fetc%2fpasswd",
        "/api/../timeline",
        "/login/../timeline",
        "/login%2f..%2ftimeline",
        "/assets;/timeline",
        "/Timeline",
        "/timeline/",
    ] {
        let stranger = console.get(path).await;
        assert!([303, 401, 404].contains(&stranger.status), "{path}: {stranger:?}");
        let known = person.get(path).await;
        assert!([400, 404].contains(&known.status), "{path}: {known:?}");
        assert!(!known.text().contains("root:"), "{path}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let (_world, console) = protected().await;
    let person = console.sign_in(READER).await;
    let long = "x".repeat(9 * 1024);
    for path in ["/timeline?actor=", "/search?q=", "/task/", "/login?next="] {
        assert_eq!(person.get(&format!("{path}{long}")).await.status, 414, "{path}");
    }
    let answer = person.get(&format!("/api/v1/timeline?actor={long}")).await;
    assert_eq!((answer.status, answer.header("content-type")), (414, "application/problem+json"));
    let answer = console.ask("POST", "/login", &[FORM], format!("token={}", "x".repeat(70_000)).as_bytes()).await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    let many = (0..2_000).map(|n| format!("c{n}=x")).collect::<Vec<_>>().join("; ");
    assert_eq!(ask_with(&console, "/api/v1/timeline", "Cookie", &many).await.status, 401);
    let too_many = format!("{}; {}", person.cookie, "x".repeat(70_000));
    let refused = crate::support::http::ask(console.port(), "GET", "/timeline", &[("Cookie", &too_many)], b"").await;
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status >= 400));
    assert_eq!(person.get("/timeline").await.status, 200, "the console goes on");
}

#[tokio::test]
async fn methods_that_are_not_there_are_refused() {
    let (_world, console) = protected().await;
    let person = console.sign_in(OPERATOR).await;
    let with = |method: &'static str, path: &'static str| {
        let cookie = person.cookie.clone();
        let console = &console;
        async move { console.ask(method, path, &[("Cookie", &cookie), ("X-Probe", "echo-me")], b"").await }
    };
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT-ME", "get"] {
        let page = with(method, "/timeline").await;
        assert_eq!((page.status, page.header("content-type")), (405, "text/html; charset=utf-8"), "{method}");
        assert!(page.header("allow").contains("GET") && !page.text().contains("echo-me"), "{method}: {page:?}");
        let answer = with(method, "/api/v1/timeline").await;
        assert_eq!((answer.status, answer.header("content-type")), (405, "application/problem+json"), "{method}");
        let problem: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(problem["status"], 405, "{problem}");
    }
    assert_eq!(console.get("/logout").await.status, 303);
    assert_eq!(with("GET", "/logout").await.status, 405, "no link signs anybody out");
}

#[tokio::test]
async fn without_tokens_another_name_for_this_machine_reads_nothing() {
    let world = World::start().await;
    let console = Console::start(&world.environment).await;
    for host in ["127.0.0.1", "localhost", "127.0.0.1:9465", "[::1]:9465"] {
        assert_eq!(ask_with(&console, "/timeline", "Host", host).await.status, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:9465", "127.0.0.1.evil.example", "localhost.evil.example", "0", ""] {
        for path in ["/timeline", "/api/v1/timeline", "/assets/console.js", "/login"] {
            assert_eq!(ask_with(&console, path, "Host", host).await.status, 421, "{host} {path}");
        }
    }
    let absolute = ask_with(&console, "http://evil.example/timeline", "Host", "127.0.0.1").await;
    assert_eq!(absolute.status, 421);
    for proxied in ["X-Forwarded-For", "Forwarded", "X-Forwarded-Host"] {
        assert_eq!(ask_with(&console, "/timeline", proxied, "192.0.2.1").await.status, 421, "{proxied}");
    }
    let page = console.page("/timeline").await;
    assert!(!page.contains("method=\"post\""), "nothing that changes anything is offered: {page}");
    assert_eq!(console.ask("POST", "/logout", &[FORM], b"form_key=x").await.status, 403);
    assert!(console.page("/login").await.contains("Nobody needs to sign in"));
}

#[tokio::test]
async fn without_tokens_the_console_serves_this_machine_alone() {
    let world = World::start().await;
    for address in ["0.0.0.0", "[::]", "192.0.2.1"] {
        let mut environment = world.environment.clone();
        environment.insert("LEDGERD__CONSOLE__LISTEN".to_owned(), format!("{address}:{}", free_port()));
        let output = ledgerd(&["console"], &environment).await;
        let text = text_of(&output);
        assert_eq!(output.status.code(), Some(78), "{address}: {text}");
        assert!(text.contains("console.listen") && text.contains("console.tokens"), "{text}");
    }
}

/// Streams that an attacker opens, and never reads to their end.
const ATTACKING_STREAMS: u8 = 250;

#[tokio::test]
async fn a_thousand_open_streams_stop_nobody() {
    let world = World::start().await;
    let _daemon = world.daemon().await;
    let console = Console::start(&world.environment).await;
    let before = console.memory_bytes();
    let mut streams = Vec::new();
    for n in 0..ATTACKING_STREAMS {
        for from in 2..6 {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((Ipv4Addr::new(127, 0, n % 5, from), 0).into()).expect("an address of this machine");
            let stream = socket.connect((Ipv4Addr::LOCALHOST, console.port()).into()).await;
            let mut stream = stream.expect("every connection is taken");
            let request = b"GET /api/v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
            // The console may have ended one of the others for this one, and this one for another.
            let _ = stream.write_all(request).await;
            streams.push(stream);
        }
    }
    assert_eq!(streams.len(), 1000);
    for path in ["/timeline", "/api/v1/timeline", "/search", "/assets/console.css"] {
        let asked = Instant::now();
        assert_eq!(console.get(path).await.status, 200, "{path}");
        assert!(asked.elapsed() < SOON / 2, "{path} took {:?}", asked.elapsed());
    }
    let refused = console.get("/api/v1/live").await;
    assert_eq!(
        (refused.status, refused.header("content-type")),
        (503, "application/problem+json"),
        "{}",
        refused.text()
    );
    let grown = console.memory_bytes().saturating_sub(before);
    assert!(grown < 100 * 1024 * 1024, "the streams hold {grown} bytes");
    drop(streams);
    eventually("places are free again", SOON, async || {
        let mut stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, console.port())).await.map_err(|it| it.to_string())?;
        stream.write_all(b"GET /api/v1/live HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").await.map_err(|it| it.to_string())?;
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.map_err(|it| it.to_string())?;
        when(head.ends_with(b" 200 OK"), || String::from_utf8_lossy(&head).into_owned())
    })
    .await;
}

/// What would be an element, an attribute or an entity, where it is not escaped.
const HOSTILE: &str = "\"'><xss onerror=alert(1)>&lt;{{7*7}}</title></script>";

/// Records with hostile text in each field that a publisher chooses.
fn hostile_records() -> Vec<Event> {
    let id = |n: u32| format!("EXEC-BRM-CTO-{HOSTILE}-{n}");
    let event = || next_event("EXEC").with("task_id", format!("TASK-{HOSTILE}"));
    let trail = next_event("TRAIL");
    let mut proposal = serde_json::from_slice::<Value>(&trail.payload()).expect("JSON")["proposal"].clone();
    proposal["description"] = HOSTILE.into();
    vec![
        event().with("event_id", id(1)),
        event().with("event_id", id(2)).with("details", json!({HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]})),
        next_event("PROP").with("details", json!({"title": HOSTILE, "proposal_id": format!("P-{HOSTILE}")})),
        trail.with("proposal", proposal),
    ]
}

/// Rejects whose reason repeats what the publisher wrote.
fn hostile_rejects() -> Vec<(Event, &'static str)> {
    vec![
        (next_event("EXEC").with("action", HOSTILE), "unknown_action"),
        (next_event("EXEC").with("outcome", "x".to_owned() + HOSTILE), "too_long"),
        (next_event("EXEC").with(HOSTILE, HOSTILE), "unknown_field"),
        (next_event("EXEC").with("timestamp", HOSTILE), "bad_timestamp"),
    ]
}

#[tokio::test]
async fn hostile_text_stays_text_on_every_page() {
    let world = World::builder().env("LEDGERD__AUDIT__EVENT_ID", "any").start().await;
    let _daemon = world.daemon().await;
    let mut published = Published::default();
    let headers = [("X-Note", HOSTILE), ("traceparent", HOSTILE)];
    for event in hostile_records() {
        published.publish_with_headers(&world.publisher, &headers, event.good()).await;
    }
    for (event, reason) in hostile_rejects() {
        published.publish_with_headers(&world.publisher, &headers, event.bad(reason)).await;
    }
    check_ledger(&world, &published).await;
    let console = Console::start(&world.environment).await;
    let visited = crawl(&console).await;
    assert!(visited.iter().any(|path| path.starts_with("/timeline?actor=")), "{visited:?}");
}

/// The most pages that a crawl looks at.
const PAGES_MAX: usize = 400;

/// Follows every link from the first pages on, and looks at each page.
async fn crawl(console: &Console) -> BTreeSet<String> {
    let escaped = utf8_of_query(HOSTILE);
    let mut next: VecDeque<String> = PAGES.map(str::to_owned).into();
    for path in [
        "/timeline?actor=",
        "/timeline?task=",
        "/search?q=",
        "/task/",
        "/proposal/",
        "/event/",
        "/money/",
        "/rejects?reason=",
    ] {
        next.push_back(format!("{path}{escaped}"));
    }
    let mut visited = BTreeSet::new();
    while let Some(path) = next.pop_front() {
        if visited.len() >= PAGES_MAX || !visited.insert(path.clone()) {
            continue;
        }
        let answer = console.get(&path).await;
        assert!(answer.status < 500, "{path}: {}", answer.text());
        if let Some(to) = Some(answer.header("location")).filter(|to| !to.is_empty()) {
            assert!(to.starts_with('/') && !to.starts_with("//"), "{path} leads to {to}");
            next.push_back(to.to_owned());
        }
        if answer.header("content-type").starts_with("text/html") {
            next.extend(links_of_safe_page(&path, &answer.text()));
        }
    }
    visited
}

/// The links of a page of this console in which nothing hostile has become markup.
fn links_of_safe_page(path: &str, text: &str) -> Vec<String> {
    assert!(!text.contains("<xss"), "{path}: {text}");
    let head = text.split("</head>").next().unwrap_or_default();
    assert_eq!(head.matches("<title>").count(), 1, "{path}");
    assert!(!text.contains("style=\""), "{path}: the policy forbids inline styles");
    let attribute = |name: &str| {
        let start = format!(" {name}=\"");
        text.split(&start)
            .skip(1)
            .map(|rest| rest.split('"').next().expect("a part").replace("&amp;", "&"))
            .collect::<Vec<_>>()
    };
    for name in ["onclick", "onerror", "onload"] {
        // Behind a quote, it is an attribute; within text, it has an escaped quote before it.
        assert!(attribute(name).is_empty(), "{path}: {name}");
    }
    for source in [attribute("src"), attribute("action"), attribute("href")].concat() {
        assert!((source.starts_with('/') && !source.starts_with("//")) || source.starts_with('#'), "{path}: {source}");
    }
    // The documents are the program's own words, and refer to each other in their own way.
    let is_page = |link: &String| link.starts_with('/') && !link.starts_with("/assets/") && !link.starts_with("/docs/");
    attribute("href").into_iter().filter(is_page).collect()
}

/// The text as it stands in a query.
fn utf8_of_query(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
