//! The server configuration that ships: the same text, on a port and with a store of the test's own.

use super::nats::Login;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The accounts of the actors, which the configuration includes.
pub(crate) const AGENTS: &str = include_str!("../../../nats/agents.conf");
const SERVER: &str = include_str!("../../../nats/nats-server.conf");

/// A user that the test adds, to publish as anybody.
pub(crate) const PUBLISHER: &str = "publisher";

/// Writes both files into this folder, and returns the environment that the server needs.
pub(super) fn write(folder: &Path, port: u16, store: &str) -> BTreeMap<String, String> {
    let replace = |text: String, from: &str, to: &str| {
        assert_eq!(text.matches(from).count(), 1, "{from:?} stands once in nats-server.conf");
        text.replace(from, to)
    };
    let text = replace(SERVER.to_owned(), "127.0.0.1:4222", &format!("127.0.0.1:{port}"));
    let text = replace(text, "\"/var/lib/nats\"", &format!("\"{store}\""));
    // No test cuts the power, and each message on the disk by itself would cost them most of their time.
    let text = replace(text, "sync_interval: always", "sync_interval: \"2m\"");
    let own = format!("users: [\n{{ user: {PUBLISHER}, password: ${}_PASSWORD, ", PUBLISHER.to_uppercase());
    let own = own + "permissions: { publish: \"ledger.*.*\", subscribe: \"_INBOX_publisher.>\" } }\n";
    let text = replace(text, "users: [", &own);
    fs::write(folder.join("nats.conf"), &text).expect("the folder is ours");
    fs::write(folder.join("agents.conf"), AGENTS).expect("the folder is ours");
    let words = text.split_whitespace().chain(AGENTS.split_whitespace());
    let variables = words.filter_map(|word| word.strip_prefix('$')?.trim_end_matches(',').strip_suffix("_PASSWORD"));
    variables.map(|name| (format!("{name}_PASSWORD"), secret(name))).collect()
}

/// A user's login: the password that [`write`] gave it.
pub(crate) fn login(user: &str) -> Login {
    Login { user: user.to_owned(), password: secret(&user.to_uppercase().replace('-', "_")) }
}

fn secret(name: &str) -> String {
    format!("secret_{name}")
}
