//! The architecture as a test: imports point one way, each foreign crate has one home, files fit a head. And the documents: they
//! name every command, their links lead somewhere.

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
fn the_operators_page_names_every_command_and_the_architecture_every_module() {
    let operate = page("docs/operate.md");
    let architecture = page("ARCHITECTURE.md");
    for command in [
        "`run`",
        "`nats-accounts`",
        "`setup",
        "`migrate",
        "`keygen",
        "`checkpoint",
        "`check`",
        "`emit`",
        "`status`",
        "`dlq list`",
        "`dlq show",
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
        assert!(operate.contains(command), "docs/operate.md does not name {command}");
    }
    for (module, ..) in sources() {
        let named = ["lib", "main"].contains(&module.as_str()) || architecture.contains(&module);
        assert!(named, "ARCHITECTURE.md does not name {module}");
    }
}

/// README.md is for the first ten minutes; what else there is to say has a page in docs/.
const README_BYTES_MAX: usize = 8_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file, by its path from the root.
fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// README.md, ARCHITECTURE.md and the pages of docs/, by their paths from the root.
fn pages() -> Vec<String> {
    let folder = fs::read_dir(root().join("docs")).expect("the folder is there");
    let names = folder.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"));
    let is_page = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "md");
    let pages = names.filter(is_page).map(|name| format!("docs/{name}"));
    ["README.md", "ARCHITECTURE.md", "docs/reports/README.md"].map(str::to_owned).into_iter().chain(pages).collect()
}

/// The lines outside of blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    })
}

fn headings(text: &str) -> impl Iterator<Item = &str> {
    prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim())
}

/// The name that a link gives to a heading: as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect::<String>().to_lowercase()
}

/// The targets of the links in a text, without those to other machines.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).collect()
}

#[test]
fn the_readme_fits_into_ten_minutes() {
    let bytes = page("README.md").len();
    assert!(bytes <= README_BYTES_MAX, "README.md has {bytes} bytes");
}

#[test]
fn every_link_leads_somewhere() {
    let mut faults = Vec::new();
    for name in pages() {
        let text = page(&name);
        let folder = Path::new(&name).parent().expect("a file is in a folder").to_owned();
        for target in links(&text) {
            let (file, heading) = target.split_once('#').map_or((target, None), |(file, name)| (file, Some(name)));
            let path = if file.is_empty() { root().join(&name) } else { root().join(&folder).join(file) };
            let is_there = heading.map_or_else(
                || path.exists(),
                |wanted| fs::read_to_string(&path).is_ok_and(|text| headings(&text).any(|it| anchor(it) == wanted)),
            );
            if !is_there {
                faults.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn headings_answer_and_do_not_ask() {
    let mut faults = Vec::new();
    for name in pages().into_iter().filter(|name| name != "docs/faq.md") {
        let text = page(&name);
        faults.extend(headings(&text).filter(|it| it.ends_with('?')).map(|heading| format!("{name}: {heading}")));
    }
    assert!(faults.is_empty(), "{faults:#?}");
}
