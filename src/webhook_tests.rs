use super::*;
use crate::domain::bearer::Bearers;

fn bearers() -> Bearers {
    let entry = |token: &str, actors: &str| format!("{} {actors}", hex(&sha256(token.as_bytes())));
    Bearers::parse(&[entry("one", "RXY-CEO BRM-CTO"), entry("two", "BRM-CTO")]).expect("good")
}

fn read(webhook: Webhook, key: Option<&str>, body: &str) -> Result<Posting, u16> {
    let bearers = bearers();
    let bearer = bearers.of_token(b"one").expect("known");
    webhook.read(bearer, key.map(str::as_bytes), body.to_owned().into()).map_err(|answer| answer.status)
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
    ] {
        let posting = read(webhook, None, body).expect(body);
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
        assert_eq!(read(webhook, None, body), Err(status), "{body}");
    }
}

#[test]
fn a_key_names_one_body_of_one_token() {
    let id = |token: &str, key: &str, body: &str| {
        let bearers = bearers();
        let bearer = bearers.of_token(token.as_bytes()).expect("known");
        let posting = Webhook::Audit.read(bearer, Some(key.as_bytes()), body.to_owned().into()).expect("an actor");
        posting.message_id.expect("a key")
    };
    let (a, b) = (r#"{"actor":"BRM-CTO","task_id":"a"}"#, r#"{"actor":"BRM-CTO","task_id":"b"}"#);
    assert_eq!(id("one", "k", a), id("one", "k", a));
    let ids: std::collections::BTreeSet<_> =
        [id("one", "k", a), id("two", "k", a), id("one", "l", a), id("one", "k", b)].into();
    assert_eq!(ids.len(), 4);
}
