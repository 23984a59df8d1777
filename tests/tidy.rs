//! The architecture as a test: imports point one way, each foreign crate has one home, files fit a head.

use std::fs;
use std::path::{Path, PathBuf};

/// What each top-level module may import from the crate.
const LAYERS: &[(&str, &[&str])] = &[
    ("anchor", &[]),
    ("clock", &[]),
    ("domain", &["domain"]),
    ("tlog", &["tlog"]),
    ("stored_tree", &["tlog"]),
    ("cosign", &["stored_tree", "tlog"]),
    ("witness", &["tlog", "witness"]),
    ("verify", &["verify", "domain", "tlog"]),
    ("position", &["domain"]),
    ("lifecycle", &["domain", "position"]),
    ("retention", &["domain"]),
    ("archive", &["retention"]),
    ("health", &[]),
    ("retry", &[]),
    ("systemd", &[]),
    ("webhook", &["domain"]),
    ("refusals", &[]),
    ("metrics", &["clock", "domain", "health", "lifecycle", "webhook"]),
    ("config", &["config", "domain", "tlog"]),
    ("telemetry", &["config"]),
    (
        "http",
        &["http", "cosign", "domain", "health", "stored_tree", "metrics", "refusals", "tlog", "webhook", "witness"],
    ),
    ("notary", &["anchor", "health", "metrics", "retry", "tlog"]),
    ("receipts", &["domain", "lifecycle", "metrics"]),
    ("outbox", &["domain", "health", "metrics", "retry"]),
    ("pipeline", &["domain", "health", "lifecycle", "metrics", "retry"]),
    (
        "nats",
        &[
            "nats",
            "clock",
            "domain",
            "health",
            "lifecycle",
            "metrics",
            "notary",
            "outbox",
            "position",
            "receipts",
            "retry",
            "tlog",
        ],
    ),
    (
        "postgres",
        &[
            "postgres",
            "domain",
            "lifecycle",
            "stored_tree",
            "notary",
            "outbox",
            "position",
            "receipts",
            "refusals",
            "retention",
            "tlog",
            "verify",
        ],
    ),
    (
        "cli",
        &[
            "cli",
            "archive",
            "clock",
            "config",
            "cosign",
            "domain",
            "health",
            "http",
            "anchor",
            "lifecycle",
            "metrics",
            "nats",
            "notary",
            "outbox",
            "pipeline",
            "position",
            "postgres",
            "receipts",
            "refusals",
            "retention",
            "retry",
            "systemd",
            "telemetry",
            "tlog",
            "webhook",
            "witness",
            "verify",
        ],
    ),
    ("lib", &[]),
    ("main", &[]),
];

/// Where each foreign crate may be named.
const HOMES: &[(&str, &[&str])] = &[
    ("sqlx", &["postgres"]),
    ("async_nats", &["nats"]),
    ("nkeys", &["nats"]),
    ("base64", &["http", "nats", "tlog", "verify"]),
    ("object_store", &["archive"]),
    ("rustls", &["archive"]),
    ("url", &["archive"]),
    ("flate2", &["domain", "http"]),
    ("num_bigint", &["domain"]),
    ("backoff", &["retry"]),
    ("signal_hook", &["systemd"]),
    ("sd_notify", &["systemd"]),
    ("axum", &["http"]),
    ("hyper", &["http"]),
    ("hyper_util", &["http"]),
    ("http_body_util", &["http"]),
    ("tokio_rustls", &["http"]),
    ("rustls_native_certs", &["http"]),
    ("clap", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("jsonschema", &["domain"]),
    ("serde_saphyr", &["domain"]),
    ("sha2", &["domain", "tlog"]),
    ("subtle", &["domain"]),
    ("ed25519_dalek", &["tlog"]),
    ("ct_merkle", &["tlog"]),
    ("signed_note", &["tlog"]),
    ("tracing_subscriber", &["telemetry"]),
];

/// Longer files hold more than one idea.
const LINES_MAX: usize = 500;

fn sources() -> Vec<(String, PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths
        .into_iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).expect("below src");
            let first = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
            let module = first.trim_end_matches(".rs").trim_end_matches("_tests").to_owned();
            let text = fs::read_to_string(&path).expect("UTF-8");
            (module, path, text)
        })
        .collect()
}

fn imported_modules(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("crate::") {
            if let Some(group) = after.strip_prefix('{') {
                let names = group.split('}').next().unwrap_or("");
                found.extend(names.split(',').map(|name| name.trim().split("::").next().unwrap_or("").to_owned()));
            } else {
                found.push(after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect());
            }
            rest = after;
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_point_one_way() {
    let mut faults = Vec::new();
    for (module, path, text) in sources() {
        let (_, allowed) =
            LAYERS.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("{module} has no layer"));
        for imported in imported_modules(&text) {
            if !allowed.contains(&imported.as_str()) {
                faults.push(format!("{}: {module} must not import {imported}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn each_foreign_crate_has_one_home() {
    let mut faults = Vec::new();
    for (module, path, text) in sources() {
        for (foreign, homes) in HOMES {
            let named = text.lines().any(|line| {
                let code = line.split("//").next().unwrap_or("");
                code.contains(&format!("{foreign}::")) && !code.contains(&format!("_{foreign}::"))
            });
            if named && !homes.contains(&module.as_str()) {
                faults.push(format!("{}: {foreign} belongs into {homes:?}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_file_says_first_what_it_answers_and_fits_a_head() {
    let mut faults = Vec::new();
    for (_, path, text) in sources() {
        let is_test = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_tests"));
        if !is_test && !text.starts_with("//! ") {
            faults.push(format!("{}: the first line says what the file answers", path.display()));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            faults.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_readme_names_every_command_and_the_architecture_every_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("there");
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("there");
    for command in [
        "`run`",
        "`setup",
        "`migrate",
        "`check`",
        "`emit`",
        "`status`",
        "`dlq list`",
        "`dlq requeue",
        "`dlq discard",
        "`retention",
        "`prove",
        "`verify-proof",
        "`witness",
        "`verify",
        "`replay",
        "`reconcile",
        "`completions",
        "`man",
    ] {
        assert!(readme.contains(command), "README.md does not name {command}");
    }
    for (module, ..) in sources() {
        let named = ["lib", "main"].contains(&module.as_str()) || architecture.contains(&module);
        assert!(named, "ARCHITECTURE.md does not name {module}");
    }
}
