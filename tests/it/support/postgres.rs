//! A private PostgreSQL: started, cut off, killed and filled up as a test needs it.
//!
//! Most tests share one server and have a database each ([`Database::fresh`]). A test that takes the server itself away
//! starts one of its own ([`Cluster::start`]), a copy of a template that is made once per test process.

use super::installation::{become_account, initialise, server_command, server_folder, template};
use super::port::free_port;
use super::process::{Process, children_of, is_alive, signal_all};
use super::small_disk::SmallDisk;
use super::{SOON, eventually, when};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tempfile::TempDir;
use tokio::sync::OnceCell;

pub(crate) use super::installation::{PASSWORD, SUPERUSER};

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

    /// A standby of this server, for which each commit waits.
    pub(crate) async fn synchronous_standby(&self) -> Arc<Self> {
        let standby = self.asynchronous_standby().await;
        self.execute("postgres", "alter system set synchronous_standby_names = 'standby'").await;
        self.execute("postgres", "select pg_reload_conf()").await;
        self.followed_by("sync").await;
        standby
    }

    /// A standby of this server, for which no commit waits. It is a copy of the data, made while the server is stopped for a moment:
    /// not every installation brings `pg_basebackup`.
    pub(crate) async fn asynchronous_standby(&self) -> Arc<Self> {
        self.stop_fast().await;
        let folder = server_folder("postgres-standby");
        let data = folder.path().join("data");
        let copied = Command::new("cp").arg("-a").arg(&self.data).arg(&data).status().expect("cp is there");
        assert!(copied.success(), "the primary's data could not be copied");
        self.restart().await;
        let primary = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user={SUPERUSER} password={PASSWORD} application_name=standby'\n",
            self.port
        );
        fs::write(data.join("postgresql.auto.conf"), primary).expect("root, or the account itself");
        fs::write(data.join("standby.signal"), "").expect("root, or the account itself");
        let standby = Self::on(folder, data, None).await;
        self.followed_by("async").await;
        standby
    }

    async fn followed_by(&self, sync_state: &str) {
        let replicating = format!("select count(*) from pg_stat_replication where sync_state = '{sync_state}'");
        eventually("the standby follows", SOON, async || {
            let mut connection =
                PgConnection::connect(&self.url("postgres")).await.map_err(|error| error.to_string())?;
            let following: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(replicating.clone()))
                .fetch_one(&mut connection)
                .await
                .expect("a number");
            when(following == 1, || "it does not".to_owned())
        })
        .await;
    }

    /// Makes a standby a server of its own, and waits until it takes writes.
    pub(crate) async fn promote(&self) {
        self.execute("postgres", "select pg_promote()").await;
    }

    /// Freezes every process of it: connections stay open, and nothing answers.
    pub(crate) fn freeze(&self) {
        signal_all("STOP", &self.pids());
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) {
        signal_all("CONT", &self.pids());
    }

    fn pids(&self) -> Vec<u32> {
        let server = self.lock().as_ref().expect("it runs").pid();
        let mut pids = vec![server];
        pids.extend(children_of(server));
        pids
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

    /// Runs statements as a superuser who means it: what changes the ledger's tables is declared to their guards.
    pub(crate) async fn execute(&self, database: &str, sql: &str) {
        self.try_execute(database, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Runs statements as a superuser who means it; they may be refused.
    pub(crate) async fn try_execute(&self, database: &str, sql: &str) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.url(database)).await?;
        sqlx::raw_sql("set ledgerd.migrating = on").execute(&mut connection).await?;
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
        Self::from_template(cluster, "template0").await
    }

    /// A copy of this database, to be spoiled. Nobody may be connected to the original.
    pub(crate) async fn copy(&self) -> Self {
        Self::from_template(Arc::clone(&self.cluster), &self.name).await
    }

    async fn from_template(cluster: Arc<Cluster>, template: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        cluster.execute("postgres", &format!("create database {name} template {template}")).await;
        Self { cluster, name }
    }

    /// The same database on a server that was this one's standby.
    pub(crate) fn on_the_promoted(&self, cluster: &Arc<Cluster>) -> Self {
        Self { cluster: Arc::clone(cluster), name: self.name.clone() }
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

    /// How many rows of a table of schema `ledger` were read by whoever went through all of it. A session is counted when it ends.
    pub(crate) async fn read_in_full(&self, table: &str) -> i64 {
        let sessions = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'ledgerd'";
        eventually("every session of ledgerd has ended", SOON, async || {
            let left = self.count(sessions).await;
            when(left == 0, || format!("{left} are there"))
        })
        .await;
        let read = "select seq_tup_read from pg_stat_user_tables where schemaname = 'ledger' and relname";
        self.count(&format!("{read} = '{table}'")).await
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
