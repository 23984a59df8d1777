//! Recognises the message envelopes of other programs, which are not valid records. The rejection names the envelope,
//! and says what to publish instead.

use crate::record::json::Object;
use crate::record::reject::{Reason, Rejection};

/// An envelope: what it is called, the fields by which it is known, and the cure.
struct Envelope {
    name: &'static str,
    fields: &'static [&'static str],
    cure: &'static str,
}

const KNOWN: [Envelope; 5] = [
    Envelope {
        name: "a CloudEvents envelope in structured mode",
        fields: &["specversion", "type", "source"],
        cure: "publish what is in data as the whole body (binary mode, with ce- headers)",
    },
    Envelope {
        name: "an envelope of NestJS, {pattern, data}",
        fields: &["pattern", "data"],
        cure: "publish what is in data as the whole body, by a serializer of your own or the client nats",
    },
    Envelope {
        name: "a task message of taskiq",
        fields: &["task_id", "task_name", "args", "kwargs"],
        cure: "publish the record itself as the whole body, and not a task",
    },
    Envelope {
        name: "a task message of Celery",
        fields: &["task", "id", "args", "kwargs"],
        cure: "publish the record itself as the whole body, and not a task",
    },
    Envelope {
        name: "a message of Celery (kombu)",
        fields: &["body", "headers", "properties"],
        cure: "publish the record itself as the whole body, and not a task",
    },
];

/// Adds to a rejection for its fields which envelope the object is.
pub(crate) fn explain(object: &Object<'_>, rejection: Rejection) -> Rejection {
    let is_of_fields = matches!(rejection.reason(), Reason::MissingField | Reason::UnknownField);
    let has = |envelope: &&Envelope| envelope.fields.iter().all(|field| object.keys().any(|key| key == *field));
    match KNOWN.iter().find(has).filter(|_| is_of_fields) {
        None => rejection,
        Some(Envelope { name, cure, .. }) => {
            Rejection::new(rejection.reason(), &format!("this is {name}: {cure}. As a record, {}", rejection.detail()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(json: &str) -> String {
        let object = Object::parse(json.as_bytes(), 8).expect("an object");
        let rejection = Rejection::new(Reason::MissingField, "event_id is required and absent");
        explain(&object, rejection).detail().to_owned()
    }

    #[test]
    fn a_known_envelope_is_named_with_its_cure() {
        for (json, name) in [
            (
                r#"{"specversion":"1.0","type":"x","source":"/s","id":"1","datacontenttype":"application/json","data":{}}"#,
                "CloudEvents",
            ),
            (r#"{"pattern":"ledger.EXEC.BRM-CTO","data":{"event_id":"x"}}"#, "NestJS"),
            (r#"{"task_id":"1","task_name":"m:f","labels":{},"labels_types":{},"args":[],"kwargs":{}}"#, "taskiq"),
            (r#"{"task":"m.f","id":"1","args":[],"kwargs":{},"retries":0}"#, "Celery"),
            (r#"{"body":"W10=","content-type":"application/json","headers":{"task":"m.f"},"properties":{}}"#, "kombu"),
        ] {
            let detail = explained(json);
            assert!(detail.contains(name) && detail.contains("as the whole body"), "{json}: {detail}");
            assert!(detail.ends_with("event_id is required and absent"), "{detail}");
        }
        assert_eq!(explained(r#"{"data":{},"type":"x"}"#), "event_id is required and absent");
    }
}
