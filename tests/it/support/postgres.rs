//! A private PostgreSQL: started, cut off, killed and filled up as a test needs it.
//!
//! Most tests share one server and have a database each ([`Database::fresh`]). A test that takes the server itself away
//! starts one of its own ([`Cluster::start`]), a copy of a template that is made once per test process.

use super::port::free_port;
use super::process::{Process, children_of, is_alive, is_root, scratch, scratch_folder, signal_all};
use super::small_disk::SmallDisk;
use super::{SOON, eventually, when};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The password of every role, the superuser's too. The server asks for it with SCRAM, so a wrong one is refused.
pub(crate) const PASSWORD: &str = "ledgerd-test";

/// The superuser.
pub(crate) const SUPERUSER: &str = "postgres";

const MAJOR_MIN: u32 = 15;

const SMALL_DISK_BYTES_MIN: u64 = 64 << 20;

/// What lets a server come up quickly, and what lets hidden assumptions show.
const SETTINGS: [&str; 6] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=200",
    // The kernel keeps what a killed process wrote; only a power cut would lose it.
    "fsync=off",
    // A ledger that leaned on the server's zone would be wrong by five and a half hours.
    "timezone=Asia/Kolkata",
    "log_min_messages=warning",
];

/// One PostgreSQL server with its data. Dropping it kills it and removes the data.
#[derive(Debug)]
pub(crate) struct Cluster {
    port: u16,
    data: PathBuf,
    log: PathBuf,
    server: Mutex<Option<Process>>,
    disk: Option<SmallDisk>,
    _folder: TempDir,
}

impl Cluster {
    /// The server that is shared by all tests which leave it alone. It ends with the test process.
    pub(crate) async fn shared() -> Arc<Self> {
        static SHARED: OnceCell<Arc<Cluster>> = OnceCell::const_new();
        Arc::clone(SHARED.get_or_init(async || Self::start().await).await)
    }

    /// A server of the test's own.
    pub(crate) async fn start() -> Arc<Self> {
        let folder = server_folder("postgres");
        let data = folder.path().join("data");
        let copied = Command::new("cp").arg("-a").arg(template()).arg(&data).status().expect("cp is there");
        assert!(copied.success(), "the template of the data folder could not be copied");
        Self::on(folder, data, None).await
    }

    /// A server of the test's own, its tables on a disk of `bytes` (at least 64 MiB) that can be [filled](Self::fill).
    /// The write-ahead log is elsewhere, so that a full disk is an error of a statement and not the server's end.
    /// `None`, said loudly, where this machine does not let the tests mount anything.
    pub(crate) async fn on_small_disk(bytes: u64) -> Option<Arc<Self>> {
        assert!(bytes >= SMALL_DISK_BYTES_MIN, "an empty server with one database needs {SMALL_DISK_BYTES_MIN} bytes");
        let folder = server_folder("postgres-small");
        let disk = match SmallDisk::mount(&folder.path().join("disk"), bytes).await {
            Ok(disk) => disk,
            Err(why) => {
                eprintln!(
                    "SKIPPED: a disk that can be full needs root or user namespaces, and there is neither: {why}"
                );
                return None;
            }
        };
        let data = disk.folder().join("data");
        initialise(&disk.enter(), &data, Some(&folder.path().join("wal")));
        Some(Self::on(folder, data, Some(disk)).await)
    }

    async fn on(folder: TempDir, data: PathBuf, disk: Option<SmallDisk>) -> Arc<Self> {
        let log = folder.path().join("postgres.log");
        let cluster = Self { port: free_port(), data, log, server: Mutex::new(None), disk, _folder: folder };
        cluster.restart().await;
        Arc::new(cluster)
    }

    /// Where clients find it, as the superuser.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_as(database, SUPERUSER)
    }

    /// Where clients find it, as `user`.
    pub(crate) fn url_as(&self, database: &str, user: &str) -> String {
        postgres_url(user, PASSWORD, self.port, database)
    }

    /// The port on 127.0.0.1. It stays the same for as long as the cluster lives.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Shuts it down in the "fast" way: connections are cut, transactions roll back, the data is left clean.
    pub(crate) async fn stop_fast(&self) {
        let Some(mut server) = self.take() else { return };
        server.signal("INT");
        server.wait_exit(SOON).await;
    }

    /// Kills every process of it at once, as a machine that dies does.
    pub(crate) async fn kill(&self) {
        let Some(mut server) = self.take() else { return };
        // Stopped first, so that it starts no further process while its children are counted.
        server.signal("STOP");
        let mut pids = children_of(server.pid());
        pids.push(server.pid());
        signal_all("KILL", &pids);
        server.wait_exit(SOON).await;
        eventually("PostgreSQL's processes end", SOON, || {
            let left: Vec<_> = pids.iter().filter(|&&pid| is_alive(pid)).collect();
            std::future::ready(when(left.is_empty(), || format!("{left:?} are alive")))
        })
        .await;
    }

    /// Starts it, again on the same port and with the same data; stops it first where it runs.
    pub(crate) async fn restart(&self) {
        self.stop_fast().await;
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data).args(["-c", &format!("port={}", self.port)]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        let mut server = Process::spawn("PostgreSQL", command, &self.log);
        let url = self.url("postgres");
        eventually("PostgreSQL takes connections", SOON, || {
            assert!(server.exit_status().is_none(), "PostgreSQL did not start\n{}", server.log_tail());
            async {
                let connection = PgConnection::connect(&url).await.map_err(|error| error.to_string())?;
                connection.close().await.map_err(|error| error.to_string())
            }
        })
        .await;
        *self.lock() = Some(server);
    }

    /// Runs statements as the superuser.
    pub(crate) async fn execute(&self, database: &str, sql: &str) {
        self.try_execute(database, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Runs statements as the superuser; they may be refused.
    pub(crate) async fn try_execute(&self, database: &str, sql: &str) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.url(database)).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await?;
        connection.close().await
    }

    /// Makes a role that may log in with [`PASSWORD`], and nothing else.
    pub(crate) async fn create_role(&self, name: &str) {
        self.execute("postgres", &format!("create role \"{name}\" login password '{PASSWORD}'")).await;
    }

    /// Fills the small disk to its last block.
    pub(crate) fn fill(&self) {
        self.disk.as_ref().expect("only a cluster on a small disk can be filled").fill();
    }

    /// Gives the space back, and starts the server again where it had given up.
    pub(crate) async fn free(&self) {
        self.disk.as_ref().expect("only a cluster on a small disk can be filled").free();
        let running = self.lock().as_mut().is_some_and(|server| server.exit_status().is_none());
        if !running {
            self.restart().await;
        }
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn command(&self, program: &str) -> Command {
        server_command(&self.disk.as_ref().map_or_else(become_account, SmallDisk::enter), program)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.server.lock().expect("no test panics while it holds a server")
    }

    fn take(&self) -> Option<Process> {
        self.lock().take()
    }
}

/// A database of one test. Dropping it drops it, and the roles that were made for it.
#[derive(Debug)]
pub(crate) struct Database {
    cluster: Arc<Cluster>,
    name: String,
}

impl Database {
    /// An empty database on the shared cluster.
    pub(crate) async fn fresh() -> Self {
        Self::on(Cluster::shared().await).await
    }

    /// An empty database on this cluster.
    pub(crate) async fn on(cluster: Arc<Cluster>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        cluster.execute("postgres", &format!("create database {name} template template0")).await;
        Self { cluster, name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Where clients find it, as the superuser.
    pub(crate) fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// Makes a role for this database alone, `<database>_<suffix>`, and returns its name.
    pub(crate) async fn create_role(&self, suffix: &str) -> String {
        let role = format!("{}_{suffix}", self.name);
        self.cluster.create_role(&role).await;
        role
    }

    /// A connection as the superuser.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.expect("the database is there")
    }

    /// Runs statements as the superuser.
    pub(crate) async fn execute(&self, sql: &str) {
        self.cluster.execute(&self.name, sql).await;
    }

    /// The one number (a `bigint`) that a query gives.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        let mut connection = self.connect().await;
        let count = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await;
        count.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (url, name) = (self.cluster.url("postgres"), self.name.clone());
        // Nobody waits for it: where the process ends first, the whole cluster goes.
        std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            let _ = runtime.block_on(drop_database(&url, &name));
        });
    }
}

async fn drop_database(url: &str, name: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    let mut drops = vec![format!("drop database {name} with (force)")];
    let roles = "select format('drop role %I', rolname) from pg_roles where starts_with(rolname, $1)";
    drops.extend(sqlx::query_scalar::<_, String>(roles).bind(format!("{name}_")).fetch_all(&mut connection).await?);
    for drop in drops {
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await?;
    }
    connection.close().await
}

/// A URL of a server on this machine, be it PostgreSQL itself or a proxy before it.
pub(crate) fn postgres_url(user: &str, password: &str, port: u16, database: &str) -> String {
    format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
}

/// An initialised data folder, made once per test process.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let data = server_folder("postgres-template").keep().join("data");
        initialise(&become_account(), &data, None);
        data
    })
}

fn initialise(prefix: &[String], data: &Path, wal: Option<&Path>) {
    let password_file = scratch().join("postgres-password");
    fs::write(&password_file, PASSWORD).expect("scratch is ours");
    let mut command = server_command(prefix, "initdb");
    command.arg("-D").arg(data).arg("--pwfile").arg(password_file);
    command.args(["-U", SUPERUSER, "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    if let Some(wal) = wal {
        command.arg("--waldir").arg(wal);
    }
    let output = command.output().expect("initdb is there");
    assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// A folder that belongs to the account that PostgreSQL runs as.
fn server_folder(name: &str) -> TempDir {
    let folder = scratch_folder(name);
    if let Some((uid, gid)) = account() {
        std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).expect("root may give folders away");
    }
    folder
}

fn server_command(prefix: &[String], program: &str) -> Command {
    let mut words: Vec<PathBuf> = prefix.iter().map(PathBuf::from).collect();
    words.push(programs().join(program));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(scratch());
    command
}

/// The words before a command that make it run as PostgreSQL's account; none where the tests do not run as root.
pub(crate) fn become_account() -> Vec<String> {
    let Some((uid, gid)) = account() else { return Vec::new() };
    let words = ["setpriv", &format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "--"];
    words.map(str::to_owned).to_vec()
}

/// PostgreSQL refuses to run as root: then it runs as `postgres` or `nobody`.
fn account() -> Option<(u32, u32)> {
    if !is_root() {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").expect("Linux");
    let ids = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("an account `postgres` or `nobody`"))
}

/// The folder with `postgres` and `initdb`.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        if let Some(folder) = std::env::var_os("LEDGERD_TEST_PG_BIN") {
            return folder.into();
        }
        let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(|version| {
            let version = version.ok()?;
            let major: u32 = version.file_name().to_str()?.parse().ok()?;
            Some((major, version.path().join("bin")))
        });
        let newest = debian.filter(|(major, folder)| *major >= MAJOR_MIN && folder.join("initdb").exists()).max();
        let on_path = || {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).find(|folder| folder.join("initdb").exists() && is_new_enough(folder))
        };
        newest.map(|(_, folder)| folder).or_else(on_path).unwrap_or_else(|| {
            panic!(
                "no PostgreSQL {MAJOR_MIN} or newer: run the tests with `make test`, which brings one, \
                 or name the folder of its programs in LEDGERD_TEST_PG_BIN"
            )
        })
    })
}

fn is_new_enough(folder: &Path) -> bool {
    let Ok(output) = Command::new(folder.join("postgres")).arg("--version").output() else { return false };
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    // "postgres (PostgreSQL) 15.4 (Debian …)"
    let major = version.split_whitespace().nth(2).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    major.is_some_and(|major| major >= MAJOR_MIN)
}
