//! What `ledgerd schema` prints: schemas that say what the daemon says, and documents that their own validators accept.

use crate::support::daemon::{Environment, ledgerd, text_of};
use crate::support::events::{Expectation, Outgoing, bad_events, good_events};
use crate::support::process::scratch_folder;
use jsonschema::Validator;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");

/// What a schema cannot say, by reason: what is wrong with the text before it is JSON, and what takes more than the record.
const BEYOND_A_SCHEMA: &[&str] = &[
    "not_utf8",
    "malformed_json",
    "too_large",
    "duplicate_key",
    "prefix_mismatch",
    "actor_mismatch",
    "hash_mismatch",
    "conflict",
    "unknown_reference",
    "duplicate",
];
/// The same of single samples whose reason is one that a schema knows in other cases.
const BEYOND_A_SCHEMA_HERE: &[(&str, &str)] = &[
    ("number_out_of_range", "9007199254740993"),
    ("number_out_of_range", "1e400"),
    // The votes do not give what threshold_met says.
    ("details_mismatch", "\"threshold_met\":true"),
    ("details_mismatch", "\"threshold_met\": true"),
    // A period that is another month than its key's.
    ("details_mismatch", "\"period\":\"2026-03\""),
    // Not in the record: who publishes it.
    ("action_not_allowed", "TRAIL-SRN-TEL-"),
    ("action_not_allowed", "daily_limit_"),
    ("bad_event_id", "TRAIL-SRN-TEL-1002-"),
];

async fn printed(arguments: &[&str]) -> String {
    let output = ledgerd(arguments, &Environment::default()).await;
    assert!(output.status.success(), "{}", text_of(&output));
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

/// The schema of the kind that a subject's lane takes.
struct Schemas([(&'static str, Validator); 5]);

impl Schemas {
    async fn printed() -> Self {
        let mut schemas = Vec::new();
        for kind in ["audit-event", "token-usage", "decision-trail", "metric", "tool-usage"] {
            let document = serde_json::from_str(&printed(&["schema", "--json-schema", kind]).await).expect("JSON");
            assert!(jsonschema::meta::is_valid(&document), "{kind}");
            schemas.push((kind, jsonschema::draft202012::new(&document).expect("a schema")));
        }
        Self(schemas.try_into().expect("five"))
    }

    fn of(&self, subject: &str) -> &Validator {
        let kind = match subject.split('.').nth(1) {
            Some("TOKENS") => "token-usage",
            Some("TRAIL") => "decision-trail",
            Some("METRIC") => "metric",
            Some("USAGE") => "tool-usage",
            _ => "audit-event",
        };
        let (_, schema) = self.0.iter().find(|(name, _)| *name == kind).expect("each kind is there");
        schema
    }

    /// Compares with what must become of the message: that this becomes of it, other tests show with the daemon. Returns
    /// whether there was something to compare.
    fn compare(&self, subject: &str, payload: &[u8], expected: &str) -> bool {
        let text = String::from_utf8_lossy(payload);
        let here = |(reason, part): &&(&str, &str)| *reason == expected && text.contains(part);
        if BEYOND_A_SCHEMA.contains(&expected) || BEYOND_A_SCHEMA_HERE.iter().any(|it| here(&it)) {
            return false;
        }
        let record: Value = serde_json::from_slice(payload).unwrap_or_else(|error| panic!("{text}: {error}"));
        let errors: Vec<String> = self.of(subject).iter_errors(&record).map(|error| error.to_string()).collect();
        assert_eq!(errors.is_empty(), expected == "recorded", "{subject} {text}: {expected}; {errors:?}");
        true
    }
}

#[tokio::test]
async fn the_schemas_take_what_the_daemon_stores_and_refuse_what_it_rejects() {
    let schemas = Schemas::printed().await;
    let mut compared = 0;
    for Outgoing { subject, payload, expectation } in good_events(150).into_iter().chain(bad_events()) {
        let expected = match expectation {
            Expectation::Good => "recorded",
            Expectation::Duplicate => "duplicate",
            Expectation::Bad(reason) => reason,
        };
        compared += u32::from(schemas.compare(&subject, &payload, expected));
    }
    assert!(compared > 150 + 20, "only {compared} were compared");
}

/// One line of JSON for each sample: subject, payload, expected.
const SAMPLES: &str = "
import json, sys, uuid
sys.path.insert(0, sys.argv[1])
import sample_events, sample_records
ids = [str(uuid.uuid4()) for _ in range(4)]
samples = list(sample_events.samples()) + [sample for step in
    sample_records.Records('VOTE-RXY-CEO-1708451234000', ids[:1], ids[1:2], ids[2:]).steps for sample in step]
for subject, payload, expected in samples:
    print(json.dumps([subject, payload.decode('latin-1'), expected]))
";

#[tokio::test]
async fn the_schemas_agree_with_the_samples_of_make_run() {
    let schemas = Schemas::printed().await;
    let samples = run("python3", &["-c", SAMPLES, SCRIPTS], &[]).await;
    let mut compared = 0;
    for line in samples.lines() {
        let (subject, payload, expected): (String, String, String) = serde_json::from_str(line).expect("a sample");
        let bytes: Vec<u8> = payload.chars().map(|it| u8::try_from(u32::from(it)).expect("Latin-1")).collect();
        compared += u32::from(schemas.compare(&subject, &bytes, &expected));
    }
    assert!(compared > 50, "only {compared} were compared");
}

/// Where packages are: `scripts/servers.py env` says so.
fn packages(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: see scripts/servers.py")).into()
}

/// Runs a program beside the runtime, and returns what it prints.
async fn run(program: &str, arguments: &[&str], environment: &[(&str, PathBuf)]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    let output = tokio::task::spawn_blocking(move || command.output().expect("it starts")).await.expect("it ends");
    assert!(output.status.success(), "{}", text_of(&output));
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

#[tokio::test]
async fn the_python_library_takes_the_schemas_and_the_description_of_the_api() {
    const CHECK: &str = "
import json, sys
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator, validate
schemas, api = (json.load(open(name)) for name in sys.argv[1:])
Draft202012Validator.check_schema(schemas)
validator = Draft202012Validator(schemas)
record = {'metric_key': 'operating_cost_2026-02', 'metric_value': 1}
assert validator.is_valid(record) and not validator.is_valid({**record, 'metric_value': -1})
validate(api, cls=OpenAPIV31SpecValidator)
assert all(path.startswith('/') for path in api['paths']) and api['openapi'].startswith('3.1')
print('good')
";
    let folder = scratch_folder("schema");
    let files = [("schemas.json", vec!["schema", "--json-schema"]), ("api.json", vec!["schema", "--openapi"])];
    let mut names = Vec::new();
    for (name, arguments) in files {
        let file = folder.path().join(name);
        std::fs::write(&file, printed(&arguments).await).expect("scratch is ours");
        names.push(file.to_str().expect("ASCII").to_owned());
    }
    let found = packages("LEDGERD_TEST_OPENAPI_VALIDATOR");
    let printed = run("python3", &["-c", CHECK, &names[0], &names[1]], &[("PYTHONPATH", found)]).await;
    assert_eq!(printed, "good\n");
}

#[tokio::test]
async fn the_parser_of_asyncapi_takes_the_description_of_the_subjects() {
    const CHECK: &str = r#"
import { readFileSync } from "node:fs";
import { Parser, DiagnosticSeverity } from "@asyncapi/parser";
const { document, diagnostics } = await new Parser().parse(readFileSync("subjects.json", "utf8"));
const faults = diagnostics.filter(({ severity }) => severity <= DiagnosticSeverity.Warning);
console.log(JSON.stringify({ faults, channels: document?.channels().all().map((channel) => channel.address()) }));
"#;
    let folder = scratch_folder("asyncapi");
    let file = folder.path().join("check.mjs");
    std::fs::write(&file, CHECK).expect("scratch is ours");
    std::fs::write(folder.path().join("subjects.json"), printed(&["schema", "--asyncapi"]).await).expect("ours");
    let modules = packages("LEDGERD_TEST_ASYNCAPI_PARSER");
    std::os::unix::fs::symlink(modules, folder.path().join("node_modules")).expect("they can be linked");
    let script = format!("cd '{}' && exec node check.mjs", folder.path().display());
    let found: Value = serde_json::from_str(&run("sh", &["-c", &script], &[]).await).expect("JSON");
    assert_eq!(found["faults"], serde_json::json!([]), "{found:#}");
    let channels: Vec<&str> = found["channels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for address in ["ledger.EXEC.{actor}", "ledger.USAGE.{actor}", "receipt.{actor}.{record}", "alert.budget.{agent}"] {
        assert!(channels.contains(&address), "{channels:?}");
    }
}

#[tokio::test]
async fn what_registry_files_add_stands_in_the_documents() {
    let folder = scratch_folder("registry");
    let file = folder.path().join("ours.yaml");
    let ours = "groups: [{name: Ours, actors: any, actions: {AUDIT_FINISHED: {outcomes: [SUCCESS]}}}]
prefixes: {AUD: {actors: [VRA-CFO]}}
details: {AUDIT_FINISHED: {type: object, required: [report]}}";
    std::fs::write(&file, ours).expect("scratch is ours");
    let settings: Environment =
        [("LEDGERD__REGISTRY__ACTIONS_EXTRA_FILES".to_owned(), file.display().to_string())].into_iter().collect();
    let document = async |arguments: &[&str]| -> Value {
        let output = ledgerd(arguments, &settings).await;
        assert!(output.status.success(), "{}", text_of(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let subjects = document(&["schema", "--asyncapi"]).await;
    assert_eq!(subjects["channels"]["AUD"]["address"], "ledger.AUD.{actor}");
    let schema = jsonschema::validator_for(&document(&["schema", "--json-schema", "audit-event"]).await);
    let schema = schema.expect("a schema");
    let mut event = serde_json::json!({
        "event_id": "AUD-VRA-CFO-1708451234567", "actor": "VRA-CFO", "action": "AUDIT_FINISHED", "outcome": "SUCCESS",
        "timestamp": "2026-02-20T17:47:14Z", "details": { "report": "r" },
    });
    assert!(schema.is_valid(&event));
    event["details"] = serde_json::json!({});
    assert!(!schema.is_valid(&event));
}
