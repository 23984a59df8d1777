//! The architecture as a test: imports point one way, each foreign crate has one home, files fit a head. And the documents: they
//! name every command, their links lead somewhere.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may import: nothing but what stands before it, and that by name. What is missing here may not be imported.
///
/// First what many share, from the bottom up; then the rooms; last what wires them.
const LAYERS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("retry", &[]),
    ("systemd", &[]),
    ("health", &[]),
    ("record", &[]),
    ("postgres", &["record"]),
    ("nats", &["health", "record", "retry"]),
    ("metrics", &["clock", "health", "record"]),
    ("http", &["health", "metrics", "record"]),
    ("config", &["http", "record"]),
    ("telemetry", &["config"]),
    ("outbox", &["health", "metrics", "postgres", "retry"]),
    ("ingest", &["clock", "health", "metrics", "nats", "postgres", "record", "retry"]),
    ("command", &["config", "health", "ingest", "nats", "postgres", "record"]),
    ("budget", &["nats", "outbox", "postgres", "record"]),
    ("dead_letter", &["command", "config", "ingest", "nats", "outbox", "postgres", "record"]),
    ("log", &["clock", "command", "config", "health", "http", "metrics", "postgres", "record", "retry"]),
    ("receipt", &["clock", "command", "config", "ingest", "metrics", "nats", "postgres", "record"]),
    ("replay", &["command", "config", "health", "ingest", "metrics", "nats", "postgres", "record", "retry", "systemd"]),
    ("retention", &["command", "config", "ingest", "postgres", "record"]),
    ("verify", &["command", "config", "ingest", "postgres", "record"]),
    ("webhook", &["http", "metrics", "postgres", "record"]),
    (
        "query",
        &[
            "budget",
            "clock",
            "command",
            "config",
            "dead_letter",
            "ingest",
            "log",
            "nats",
            "postgres",
            "record",
            "verify",
            "webhook",
        ],
    ),
    ("mcp", &["budget", "command", "config", "log", "postgres", "query", "record", "telemetry"]),
    ("notify", &["clock", "command", "config", "http", "metrics", "postgres", "query", "record", "retry"]),
    (
        "console",
        &[
            "budget",
            "clock",
            "command",
            "config",
            "dead_letter",
            "http",
            "ingest",
            "log",
            "mcp",
            "postgres",
            "query",
            "record",
            "systemd",
            "telemetry",
        ],
    ),
    ("schema", &["command", "config", "console", "record"]),
    ("daemon", EVERYTHING),
    ("cli", EVERYTHING),
    ("lib", &[]),
    ("main", &[]),
];

const EVERYTHING: &[&str] = &["*"];

/// What imports something else all the same, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("postgres", "ingest::lifecycle", "what a failed commit needs is a contract of the pipeline"),
    ("metrics", "ingest::lifecycle", "a lane's counters count what a commit stored"),
    ("metrics", "webhook::call", "each webhook has its counters from the start"),
    ("config", "budget::status", "settings are read into the types that use them"),
    ("config", "retention::file", "settings are read into the types that use them"),
    ("ingest", "budget", "a day and its alert are written in the commit that causes them"),
    ("verify", "log::anchor", "the checkpoints that were signed bind what is verified"),
    ("verify", "log::witnesses", "and so does what the witnesses cosigned"),
];

/// Where each foreign crate may be named.
const HOMES: &[(&str, &[&str])] = &[
    (
        "sqlx",
        &[
            "budget",
            "dead_letter",
            "ingest",
            "log",
            "notify",
            "outbox",
            "postgres",
            "query",
            "receipt",
            "retention",
            "verify",
            "webhook",
        ],
    ),
    ("async_nats", &["budget", "dead_letter", "ingest", "log", "nats", "receipt"]),
    ("nkeys", &["nats"]),
    ("base64", &["config", "console", "dead_letter", "nats", "notify", "verify", "webhook"]),
    ("object_store", &["retention"]),
    ("hmac", &["notify"]),
    ("reqwest", &["http", "log", "notify"]),
    ("rustls", &["http", "log", "retention"]),
    ("url", &["config", "retention"]),
    ("flate2", &["log", "retention"]),
    ("num_bigint", &["record"]),
    ("backoff", &["retry"]),
    ("signal_hook", &["systemd"]),
    ("sd_notify", &["systemd"]),
    ("axum", &["console", "http", "log", "webhook"]),
    ("http_body_util", &["webhook"]),
    (
        "clap",
        &[
            "cli",
            "console",
            "dead_letter",
            "log",
            "notify",
            "query",
            "receipt",
            "replay",
            "retention",
            "schema",
            "verify",
        ],
    ),
    ("clap_mangen", &["cli"]),
    ("rmcp", &["mcp"]),
    ("schemars", &["budget", "mcp", "query"]),
    ("jsonschema", &["record", "schema"]),
    ("serde_saphyr", &["record"]),
    ("sha2", &["notify", "record", "retention"]),
    ("subtle", &["http"]),
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

/// The paths after `crate::`, those of groups one by one.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for after in code.split("crate::").skip(1) {
        let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let path: String = after.chars().take_while(|c| is_path(*c)).collect();
        match after[path.len()..].strip_prefix('{').and_then(|group| group.split('}').next()) {
            Some(group) => {
                let names = group.split(',').map(|name| name.split_whitespace().next().unwrap_or(""));
                found.extend(names.filter(|name| !name.is_empty()).map(|name| format!("{path}{name}")));
            }
            None => found.push(path),
        }
    }
    found
}

fn is_below(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn imports_point_one_way() {
    let mut faults = Vec::new();
    for (module, path, text) in sources() {
        let (_, allowed) =
            LAYERS.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("{module} has no layer"));
        for imported in imports(&text) {
            let room = imported.split("::").next().expect("a name");
            let may = room == module
                || *allowed == EVERYTHING
                || allowed.contains(&room)
                || EXCEPTIONS.iter().any(|(of, what, _)| *of == module && is_below(&imported, what));
            if !may {
                faults.push(format!("{}: {module} must not import {imported}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// Files that import each other in a circle are one file in the reader's head. A module and what is inside it are one.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files: Vec<(String, String)> = sources()
        .into_iter()
        .filter(|(module, path, _)| module != "lib" && module != "main" && !is_test(path))
        .map(|(_, path, text)| {
            let relative = path.strip_prefix(&root).expect("below src").with_extension("");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or("").to_owned();
            (relative.to_string_lossy().replace('/', "::"), code)
        })
        .collect();
    let owner = |path: &str| {
        let owners = files.iter().map(|(module, _)| module.as_str()).filter(|module| is_below(path, module));
        owners.max_by_key(|module| module.len())
    };
    let imports: HashMap<&str, HashSet<&str>> = files
        .iter()
        .map(|(module, code)| {
            let imported = imports(code);
            let others = imported.iter().filter_map(|path| owner(path));
            let others = others.filter(|other| !is_below(other, module) && !is_below(module, other));
            (module.as_str(), others.collect())
        })
        .collect();
    let reached_from = |start: &str| {
        let (mut reached, mut next) = (HashSet::new(), imports[start].iter().copied().collect::<Vec<_>>());
        while let Some(module) = next.pop() {
            if reached.insert(module) {
                next.extend(&imports[module]);
            }
        }
        reached
    };
    let circles: Vec<&str> =
        files.iter().map(|(module, _)| module.as_str()).filter(|it| reached_from(it).contains(it)).collect();
    assert!(circles.is_empty(), "in a circle: {circles:#?}");
}

/// An acknowledgement tells the server that a message is durable: one file may send it.
#[test]
fn acknowledgements_are_sent_from_one_place() {
    let home = Path::new("ingest").join("source.rs");
    for (_, path, text) in sources() {
        let sends = ["+ACK", "double_ack", ".ack()", "AckKind"].iter().find(|way| text.contains(**way));
        assert!(
            sends.is_none() || path.ends_with(&home),
            "{}: {sends:?} belongs into {}",
            path.display(),
            home.display()
        );
    }
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_tests"))
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
fn every_file_says_first_what_it_is_and_fits_a_head() {
    let mut faults = Vec::new();
    for (_, path, text) in sources() {
        let first = text.lines().next().unwrap_or("");
        if !is_test(&path) && (!first.starts_with("//! ") || first.ends_with('?')) {
            faults.push(format!("{}: the first line says what the file is", path.display()));
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
        "`spend",
        "`dlq list`",
        "`dlq show",
        "`dlq requeue",
        "`dlq discard",
        "`retention",
        "`prove",
        "`verify-proof",
        "`verify",
        "`log",
        "`show",
        "`replay",
        "`reconcile",
        "`notify list",
        "`notify test",
        "`notify retry",
        "`console",
        "`mcp`",
        "`schema",
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
