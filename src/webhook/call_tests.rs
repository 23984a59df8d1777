use super::*;
use crate::http::api_token::ApiTokens;

fn tokens() -> ApiTokens {
    let entry = |token: &str, actors: &str| format!("{} {actors}", hex(&sha256(token.as_bytes())));
    let entries = [entry("one", "RXY-CEO BRM-CTO"), entry("two", "BRM-CTO"), entry("all", "*"), entry("agent", AGENT)];
    ApiTokens::parse(&entries).expect("good")
}

/// An agent, as the registries of tools know it.
const AGENT: &str = "11111111-1111-4111-8111-111111111111";

/// With this token, and this actor in the header.
fn read_as(token: &str, actor: Option<&str>, webhook: Webhook, body: &str) -> Result<Posting, WebhookAnswer> {
    let tokens = tokens();
    let token = tokens.of_token(token.as_bytes()).expect("known");
    webhook.read(WebhookCaller { token, actor, idempotency_key: None }, body.to_owned().into())
}

fn subject_as(token: &str, actor: Option<&str>, webhook: Webhook, body: &str) -> Result<String, u16> {
    read_as(token, actor, webhook, body).map(|posting| posting.subject).map_err(|answer| answer.status)
}

#[test]
fn a_body_goes_unchanged_to_the_lane_of_its_prefix_in_its_actors_name() {
    for (webhook, body, subject) in [
        (Webhook::Audit, r#"{"event_id":"SEC-RXY-CEO-0123456789abcdef","actor":"RXY-CEO"}"#, "ledger.SEC.RXY-CEO"),
        (Webhook::Audit, r#" {"actor":"BRM-CTO","event_id":"ERR-BRM-CTO-T-1","x":1e400} "#, "ledger.ERR.BRM-CTO"),
        (Webhook::Audit, r#"{"event_id":"WHAT-RXY-CEO-1","actor":"RXY-CEO"}"#, "ledger.SYS.RXY-CEO"),
        (Webhook::Audit, r#"{"event_id":"TOKENS-RXY-CEO-1","actor":"RXY-CEO"}"#, "ledger.SYS.RXY-CEO"),
        (Webhook::Audit, r#"{"event_id":7,"actor":"RXY-CEO"}"#, "ledger.SYS.RXY-CEO"),
        (Webhook::Audit, r#"{"actor":"RXY-CEO"}"#, "ledger.SYS.RXY-CEO"),
        (Webhook::Tokens, r#"{"agent_name":"RXY-CEO","tokens_input":1}"#, "ledger.TOKENS.RXY-CEO"),
        (Webhook::Metrics, r#"{"metric_key":"x","set_by":"BRM-CTO"}"#, "ledger.METRIC.BRM-CTO"),
    ] {
        let posting = read_as("one", None, webhook, body).expect(body);
        assert_eq!((posting.subject.as_str(), &posting.payload[..]), (subject, body.as_bytes()));
        assert_eq!(posting.message_id, None);
    }
}

#[test]
fn what_nobody_can_answer_for_goes_nowhere() {
    for (webhook, body, status) in [
        (Webhook::Audit, "", 400),
        (Webhook::Audit, "event_id=1", 400),
        (Webhook::Audit, r#"{"actor":"RXY-CEO""#, 400),
        (Webhook::Audit, r#"{"actor":"RXY-CEO"} {}"#, 400),
        (Webhook::Audit, "[]", 422),
        (Webhook::Audit, "null", 422),
        (Webhook::Audit, "{}", 422),
        (Webhook::Audit, r#"{"actor":null}"#, 422),
        (Webhook::Audit, r#"{"actor":["RXY-CEO"]}"#, 422),
        (Webhook::Audit, r#"{"actor":""}"#, 422),
        (Webhook::Audit, r#"{"agent_name":"RXY-CEO"}"#, 422),
        (Webhook::Tokens, r#"{"actor":"RXY-CEO"}"#, 422),
        (Webhook::Audit, r#"{"actor":"SRN-CIO"}"#, 403),
        (Webhook::Audit, r#"{"actor":"*"}"#, 403),
        (Webhook::Audit, r#"{"actor":"RXY-CEO.x"}"#, 403),
    ] {
        assert_eq!(subject_as("one", None, webhook, body), Err(status), "{body}");
    }
}

#[test]
fn the_author_is_named_by_the_header_or_the_body_or_a_token_of_one_actor() {
    let body = r#"{"agent_id":"11111111-1111-4111-8111-111111111111"}"#;
    for (token, actor, webhook, body, becomes) in [
        // The header is compared with the token, and the judge compares it with the body.
        ("one", Some("BRM-CTO"), Webhook::Trails, "{}", Ok("ledger.TRAIL.BRM-CTO")),
        ("one", Some("BRM-CTO"), Webhook::Tokens, r#"{"agent_name":"SRN-CIO"}"#, Ok("ledger.TOKENS.BRM-CTO")),
        ("one", Some("SRN-CIO"), Webhook::Audit, r#"{"actor":"BRM-CTO"}"#, Err(403)),
        ("two", Some("RXY-CEO"), Webhook::Trails, "{}", Err(403)),
        ("all", Some("SRN-CIO"), Webhook::Metrics, "{}", Ok("ledger.METRIC.SRN-CIO")),
        ("all", Some("a.b"), Webhook::Metrics, "{}", Err(403)),
        ("all", Some(">"), Webhook::Usage, body, Err(403)),
        // A body that names nobody.
        ("one", None, Webhook::Trails, "{}", Err(422)),
        ("one", None, Webhook::Metrics, "{}", Err(422)),
        ("all", None, Webhook::Trails, "{}", Err(422)),
        ("two", None, Webhook::Trails, "{}", Ok("ledger.TRAIL.BRM-CTO")),
        ("two", None, Webhook::Metrics, "{}", Ok("ledger.METRIC.BRM-CTO")),
        ("two", None, Webhook::Metrics, r#"{"set_by":"RXY-CEO"}"#, Err(403)),
        ("two", None, Webhook::Audit, "{}", Ok("ledger.SYS.BRM-CTO")),
        // An agent goes by its UUID, or by the actor that it is.
        ("two", None, Webhook::Usage, body, Ok("ledger.USAGE.BRM-CTO")),
        ("one", None, Webhook::Usage, body, Err(422)),
        ("agent", None, Webhook::Usage, body, Ok("ledger.USAGE.11111111-1111-4111-8111-111111111111")),
        ("all", None, Webhook::Usage, body, Ok("ledger.USAGE.11111111-1111-4111-8111-111111111111")),
        ("all", Some("WRK-010"), Webhook::Usage, body, Ok("ledger.USAGE.WRK-010")),
    ] {
        let found = subject_as(token, actor, webhook, body);
        assert_eq!(found, becomes.map(str::to_owned), "{token} {actor:?} {webhook:?} {body}");
    }
}

#[test]
fn whoever_names_no_actor_is_told_every_way_to_do_it() {
    for webhook in Webhook::ALL {
        let answer = read_as("one", None, webhook, "{}").expect_err("nobody is named").body.to_string();
        assert!(answer.contains(ACTOR_HEADER) && answer.contains("one actor alone"), "{answer}");
        let field = matches!(webhook, Webhook::Audit | Webhook::Tokens | Webhook::Metrics);
        assert_eq!(answer.contains("in the field"), field, "{answer}");
    }
}

#[test]
fn a_key_names_one_body_of_one_token() {
    let id = |token: &str, key: &str, body: &str| {
        let tokens = tokens();
        let token = tokens.of_token(token.as_bytes()).expect("known");
        let caller = WebhookCaller { token, actor: None, idempotency_key: Some(key.as_bytes()) };
        let posting = Webhook::Audit.read(caller, body.to_owned().into()).expect("an actor");
        posting.message_id.expect("a key")
    };
    let (a, b) = (r#"{"actor":"BRM-CTO","task_id":"a"}"#, r#"{"actor":"BRM-CTO","task_id":"b"}"#);
    assert_eq!(id("one", "k", a), id("one", "k", a));
    let ids: std::collections::BTreeSet<_> =
        [id("one", "k", a), id("two", "k", a), id("one", "l", a), id("one", "k", b)].into();
    assert_eq!(ids.len(), 4);
}
