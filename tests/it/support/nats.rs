//! A nats-server of the test's own, with its streams in a folder that goes with it.

use super::port::free_port;
use super::process::{Process, scratch_folder};
use super::{SOON, eventually, shipped_nats, when};
use async_nats::{Client, ConnectOptions, jetstream};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};
use tempfile::TempDir;

const VERSION_MIN: (u32, u32) = (2, 10);

/// What the server logs when it has read its configuration again.
const RELOADED: &str = "Reloaded server configuration";

/// A name and a password.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// How one server differs from the plainest.
#[derive(Clone, Debug, Default)]
pub(crate) struct NatsSettings {
    /// Whom it lets in; anybody, when there is none. Where the further lines have accounts, one of their users.
    pub(crate) login: Option<Login>,
    /// Further lines of its configuration.
    pub(crate) lines: String,
    /// A `.creds` file for the test's own connections.
    pub(crate) credentials: Option<String>,
    /// Certificates for the test's own connections.
    pub(crate) tls: Option<TlsFiles>,
    /// It writes each message through to the disk before it confirms it, as the shipped configuration says. That takes longer than
    /// another client's answer.
    pub(crate) writes_through: bool,
}

/// Paths of PEM files.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) roots: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// One nats-server with its store. Dropping it kills it and removes the store.
#[derive(Debug)]
pub(crate) struct NatsServer {
    name: String,
    port: u16,
    /// How the test itself gets in.
    settings: NatsSettings,
    environment: BTreeMap<String, String>,
    server: Mutex<Option<Process>>,
    folder: TempDir,
}

impl NatsServer {
    /// A server that lets anybody in.
    pub(crate) async fn start() -> Self {
        Self::start_with(NatsSettings::default()).await
    }

    /// A server with these settings.
    pub(crate) async fn start_with(settings: NatsSettings) -> Self {
        let server = Self::prepare("nats", free_port(), &settings);
        server.restart().await;
        server
    }

    /// A server with the configuration that ships. Its [login](Self::login) is the operator's.
    pub(crate) async fn start_shipped() -> Self {
        let (folder, port) = (scratch_folder("nats"), free_port());
        let store = folder.path().join("store").display().to_string();
        let environment = shipped_nats::write(folder.path(), port, &store);
        let settings = NatsSettings { login: Some(shipped_nats::login("setup")), ..NatsSettings::default() };
        let server = Self { name: "nats".to_owned(), port, settings, environment, server: Mutex::new(None), folder };
        server.restart().await;
        server
    }

    /// Writes its configuration, and does not start it.
    pub(super) fn prepare(name: &str, port: u16, settings: &NatsSettings) -> Self {
        let folder = scratch_folder(name);
        let store = folder.path().join("store").display().to_string();
        let sync_interval = if settings.writes_through { "always" } else { "2m" };
        let mut configuration = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nmax_payload: 1MB\n\
             jetstream {{ store_dir: \"{store}\", max_file_store: 100GB, max_memory_store: 1GB, sync_interval: {sync_interval} }}\n"
        );
        let has_accounts = settings.lines.contains("accounts {");
        if let (Some(Login { user, password }), false) = (&settings.login, has_accounts) {
            writeln!(configuration, "authorization {{ user: {user:?}, password: {password:?} }}").expect("a string");
        }
        configuration.push_str(&settings.lines);
        fs::write(folder.path().join("nats.conf"), configuration).expect("the folder is ours");
        let (settings, environment) = (settings.clone(), BTreeMap::new());
        Self { name: name.to_owned(), port, settings, environment, server: Mutex::new(None), folder }
    }

    /// Changes its configuration, and has it read anew while it runs.
    pub(crate) async fn reconfigure(&self, change: impl FnOnce(String) -> String) {
        let file = self.folder.path().join("nats.conf");
        let (before, lines_before) = (fs::read_to_string(&file).expect("it was written"), self.log_count(RELOADED));
        fs::write(&file, change(before)).expect("the folder is ours");
        self.lock().as_mut().expect("it runs").signal("HUP");
        eventually("nats-server reads its configuration", SOON, async || {
            when(self.log_count(RELOADED) > lines_before, || self.log_tail())
        })
        .await;
    }

    fn log_count(&self, text: &str) -> usize {
        self.lock().as_ref().map_or(0, |server| server.log().matches(text).count())
    }

    /// Where its configuration stands, for files beside it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where this user connects to.
    pub(crate) fn url_of(&self, Login { user, password }: &Login) -> String {
        self.url().replacen("nats://", &format!("nats://{user}:{password}@"), 1)
    }

    /// Where clients find it, without a password.
    pub(crate) fn url(&self) -> String {
        nats_url(self.port)
    }

    /// The port on 127.0.0.1. It stays the same for as long as this value lives.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whom it lets in, where it does not let in anybody.
    pub(crate) fn login(&self) -> Option<&Login> {
        self.settings.login.as_ref()
    }

    /// The name that it has among others.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A connection of the test's own, with the right password.
    pub(crate) async fn connect(&self) -> Client {
        self.try_connect().await.unwrap_or_else(|error| panic!("{}: {error}\n{}", self.name, self.log_tail()))
    }

    /// JetStream over a connection of the test's own.
    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.connect().await)
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&self) {
        self.lock().take();
    }

    /// Stops it with SIGTERM, so that it says goodbye to its clients and writes its state down.
    pub(crate) async fn stop(&self) {
        let Some(mut server) = self.lock().take() else { return };
        server.signal("TERM");
        server.wait_exit(SOON).await;
    }

    /// Starts it, again on the same port and with the same store; kills it first where it runs.
    pub(crate) async fn restart(&self) {
        self.launch();
        eventually("nats-server answers, and JetStream with it", SOON, async || {
            assert!(self.is_running(), "nats-server did not start\n{}", self.log_tail());
            let client = self.try_connect().await.map_err(|error| error.to_string())?;
            jetstream::new(client).query_account().await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Starts it and does not wait for it: alone, a member of a cluster has no answers.
    pub(super) fn launch(&self) {
        self.kill();
        let mut command = Command::new(program());
        command.arg("-c").arg(self.folder.path().join("nats.conf")).envs(&self.environment);
        let server = Process::spawn(&self.name, command, &self.folder.path().join("nats.log"));
        *self.lock() = Some(server);
    }

    /// Stops it, copies its streams and consumers as they are, and starts it again.
    pub(crate) async fn back_up(&self) -> TempDir {
        let backup = scratch_folder("backup");
        self.stop().await;
        copy_folder(&self.folder.path().join("store"), &backup.path().join("store"));
        self.restart().await;
        backup
    }

    /// Puts a backup in the place of what it has.
    pub(crate) async fn restore(&self, backup: &TempDir) {
        self.stop().await;
        fs::remove_dir_all(self.folder.path().join("store")).expect("the folder is ours");
        copy_folder(&backup.path().join("store"), &self.folder.path().join("store"));
        self.restart().await;
    }

    /// Freezes it (SIGSTOP): connections stay open, and nothing answers.
    pub(crate) fn freeze(&self) {
        self.lock().as_mut().expect("it runs").signal("STOP");
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) {
        self.lock().as_mut().expect("it runs").signal("CONT");
    }

    pub(crate) fn is_running(&self) -> bool {
        self.lock().as_mut().is_some_and(|server| server.exit_status().is_none())
    }

    async fn try_connect(&self) -> Result<Client, async_nats::ConnectError> {
        if let Some(login) = &self.settings.login {
            return self.try_connect_as(login).await;
        }
        let mut options = match &self.settings.credentials {
            Some(credentials) => ConnectOptions::with_credentials(credentials).expect("a .creds file"),
            None => ConnectOptions::new(),
        };
        if let Some(TlsFiles { roots, certificate, key }) = &self.settings.tls {
            options =
                options.add_root_certificates(roots.into()).add_client_certificate(certificate.into(), key.into());
        }
        options.name("the test").connect(self.url()).await
    }

    /// A connection of this user, who listens on an inbox of its own.
    pub(crate) async fn try_connect_as(
        &self,
        Login { user, password }: &Login,
    ) -> Result<Client, async_nats::ConnectError> {
        let options = ConnectOptions::new().name("the test").custom_inbox_prefix(format!("_INBOX_{user}"));
        options.user_and_password(user.clone(), password.clone()).connect(self.url()).await
    }

    pub(super) fn log_tail(&self) -> String {
        self.lock().as_ref().map_or_else(String::new, Process::log_tail)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.server.lock().expect("no test panics while it holds a server")
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp is there");
    assert!(copied.success(), "{} could not be copied", from.display());
}

/// A URL of a server on this machine, be it nats-server itself or a proxy before it.
pub(crate) fn nats_url(port: u16) -> String {
    format!("nats://127.0.0.1:{port}")
}

/// The nats-server to test with.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(program) = std::env::var_os("LEDGERD_TEST_NATS_SERVER") {
            return program.into();
        }
        let on_path = PathBuf::from("nats-server");
        let fetched = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.ledgerd/nats-server")).into_iter().flatten();
        let fetched = fetched.filter_map(|version| Some(version.ok()?.path().join("nats-server")));
        let newest = fetched.filter_map(|program| Some((version(&program)?, program))).max();
        if version(&on_path).is_some_and(|version| version >= VERSION_MIN) {
            return on_path;
        }
        let (_, newest) = newest.filter(|(version, _)| *version >= VERSION_MIN).unwrap_or_else(|| {
            panic!(
                "no nats-server of {}.{} or newer: run the tests with `make test`, which brings one, \
                 or name the program in LEDGERD_TEST_NATS_SERVER",
                VERSION_MIN.0, VERSION_MIN.1
            )
        });
        newest
    })
}

/// From "nats-server: v2.10.26"; `None` where there is no such program.
fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().rsplit_once('v')?.1.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
