//! A fixed number of connections to PostgreSQL. Each is used by one caller at a time, and dropped whenever it may be
//! broken.
//!
//! A pool that hides connection errors, and keeps a connection after a timeout, would serve neither the operator nor
//! the commit path. So connections are lent from here, and are kept only when their user reports that they work.

use crate::postgres::remedy::DatabaseError;
use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// Bounds of every conversation with the server.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    pub connect: Duration,
    /// One statement; the server itself ends it then.
    pub statement: Duration,
}

impl ConnectionLimits {
    /// Waiting for a lock: short, so that a frozen holder is noticed in time.
    fn lock(&self) -> Duration {
        self.statement / 2
    }

    /// A whole transaction as the client sees it: a server that does not answer at all.
    pub fn transaction(&self) -> Duration {
        self.statement * 2
    }
}

/// A connection that was idle for longer is asked for a sign of life before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// Where connections lead. Each change makes a new generation, and older connections are not used again.
#[derive(Clone, Debug)]
struct Target {
    /// The same database on several hosts, in the order of the URL.
    hosts: Vec<PgConnectOptions>,
    generation: u64,
}

/// The connections to one database.
#[derive(Debug)]
pub struct Connections {
    target: Mutex<Target>,
    limits: ConnectionLimits,
    permits: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

impl Connections {
    /// Connects to nothing yet. At most `connections_max` are open at a time.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the URL; it does not repeat it, for it may hold a password.
    pub fn new(url: &str, limits: ConnectionLimits, connections_max: usize) -> Result<Self, String> {
        Ok(Self {
            target: Mutex::new(Target { hosts: parse_url(url)?, generation: 0 }),
            limits,
            permits: Semaphore::new(connections_max),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Uses another URL from now on: rotated credentials, or another host. A transaction that has begun ends where it is.
    pub fn set_url(&self, url: &str) -> Result<(), String> {
        let hosts = parse_url(url)?;
        let mut target = self.target.lock();
        target.hosts = hosts;
        target.generation += 1;
        Ok(())
    }

    pub fn limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// Waits for a free connection, in the order of asking.
    pub async fn lease(&self) -> Result<Lease<'_>, DatabaseError> {
        self.bounded("waiting for a free connection", self.lease_unbounded()).await
    }

    async fn lease_unbounded(&self) -> Result<Lease<'_>, DatabaseError> {
        let permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let target = self.target.lock().clone();
        while let Some(mut idle) = self.take_idle() {
            if idle.generation != target.generation {
                continue;
            }
            let is_well = idle.since.elapsed() < TRUSTED_IDLE
                || matches!(timeout(self.limits.connect, idle.connection.ping()).await, Ok(Ok(())));
            if is_well {
                let Idle { connection, generation, backend_pid, .. } = idle;
                return Ok(Lease { home: self, connection, generation, backend_pid, _permit: permit });
            }
        }
        let (connection, backend_pid) = self.connect(&target).await?;
        Ok(Lease { home: self, connection, generation: target.generation, backend_pid, _permit: permit })
    }

    /// A connection that its caller keeps, beside those that are lent: for reads that take long.
    pub(crate) async fn open(&self) -> Result<PgConnection, DatabaseError> {
        let target = self.target.lock().clone();
        self.connect(&target).await.map(|(connection, _)| connection)
    }

    fn take_idle(&self) -> Option<Idle> {
        self.idle.lock().pop()
    }

    /// Tries one host after the other. A standby takes no writes, so it is passed over while there is another to try.
    async fn connect(&self, target: &Target) -> Result<(PgConnection, i32), DatabaseError> {
        let mut failures = Vec::new();
        for (position, options) in target.hosts.iter().enumerate() {
            let is_last = position + 1 == target.hosts.len();
            let connecting = async {
                let mut connection = options.connect().await?;
                let session = self.prepare_session(&mut connection).await?;
                Ok::<_, sqlx::Error>((connection, session))
            };
            match timeout(self.limits.connect, connecting).await {
                Ok(Ok((_, session))) if session.encoding != "UTF8" => {
                    failures.push(DatabaseError::unusable(format!(
                        "the database has the encoding {}, which cannot hold every record: create it with encoding 'UTF8'",
                        session.encoding
                    )));
                }
                Ok(Ok((connection, session))) if is_last || !session.is_standby => {
                    return Ok((connection, session.backend_pid));
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => failures.push(DatabaseError::connecting(error)),
                Err(_) => failures.push(DatabaseError::silent("connecting", self.limits.connect)),
            }
        }
        Err(DatabaseError::of_all_hosts(failures))
    }

    /// Runs a short conversation, bounded as a whole: a server that is frozen answers nothing at all.
    pub(crate) async fn bounded<T>(
        &self,
        doing: &str,
        work: impl Future<Output = Result<T, DatabaseError>>,
    ) -> Result<T, DatabaseError> {
        let limit = self.limits.transaction();
        timeout(limit, work).await.unwrap_or_else(|_| Err(DatabaseError::silent(doing, limit)))
    }

    /// The same with a connection, which stays open for the next conversation if this one succeeds.
    pub(crate) async fn run<T>(
        &self,
        doing: &str,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, DatabaseError> {
        let conversation = async {
            let mut lease = self.lease().await?;
            let done = work(&mut lease).await.map_err(DatabaseError::new)?;
            lease.keep();
            Ok(done)
        };
        // Queries are large futures, which need not be part of every caller.
        self.bounded(doing, Box::pin(conversation)).await
    }

    /// Bounds the session on the server's side too. Where the server was told not to wait for the disk at a commit, this
    /// session waits all the same: an acknowledgement is a promise.
    async fn prepare_session(&self, connection: &mut PgConnection) -> Result<ServerSession, sqlx::Error> {
        let row = sqlx::query(
            "select
                set_config('statement_timeout', $1, false),
                set_config('lock_timeout', $2, false),
                set_config('idle_in_transaction_session_timeout', $1, false),
                -- Known since PostgreSQL 17. The bounds above are enough; one of the server's own would also end what takes long
                -- by right: a commit that waits for its standby, a verification.
                case when current_setting('transaction_timeout', true) is not null
                    then set_config('transaction_timeout', '0', false) end,
                set_config('timezone', 'UTC', false),
                set_config('datestyle', 'ISO, YMD', false),
                set_config('search_path', 'pg_catalog', false),
                -- Compiling a statement takes longer than any of ours runs.
                set_config('jit', 'off', false),
                -- Policies that would hide rows are an error: what is hidden must not pass for absent.
                set_config('row_security', 'off', false),
                set_config(
                    'synchronous_commit',
                    case current_setting('synchronous_commit') when 'off' then 'on' else current_setting('synchronous_commit') end,
                    false
                ),
                pg_is_in_recovery() as is_standby,
                pg_backend_pid() as backend_pid,
                getdatabaseencoding()::text as encoding",
        )
        .bind(format!("{}ms", self.limits.statement.as_millis()))
        .bind(format!("{}ms", self.limits.lock().as_millis()))
        .fetch_one(connection)
        .await?;
        Ok(ServerSession {
            is_standby: row.try_get("is_standby")?,
            backend_pid: row.try_get("backend_pid")?,
            encoding: row.try_get("encoding")?,
        })
    }
}

/// One set of options for each host between the login and the path.
fn parse_url(url: &str) -> Result<Vec<PgConnectOptions>, String> {
    let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let (scheme, rest) =
        url.split_once("://").filter(|_| is_postgres).ok_or("it must begin with postgres:// or postgresql://")?;
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |end| rest.split_at(end));
    let (login, hosts) = authority.rfind('@').map_or(("", authority), |at| authority.split_at(at + 1));
    hosts
        .split(',')
        .map(|host| {
            let options = PgConnectOptions::from_str(&format!("{scheme}://{login}{host}{path}"));
            let options = options.map_err(|error| error.to_string())?;
            Ok(options.application_name("ledgerd").disable_statement_logging())
        })
        .collect()
}

/// A connection that nobody uses.
#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    generation: u64,
    backend_pid: i32,
    since: Instant,
}

/// What a server says about a session.
struct ServerSession {
    is_standby: bool,
    backend_pid: i32,
    encoding: String,
}

/// A connection in use. Dropping it closes it, which rolls back whatever it was doing; [`Lease::keep`] gives it back.
#[derive(Debug)]
pub struct Lease<'a> {
    home: &'a Connections,
    connection: PgConnection,
    generation: u64,
    backend_pid: i32,
    _permit: SemaphorePermit<'a>,
}

impl Lease<'_> {
    /// The connection is well, and outside a transaction.
    pub fn keep(self) {
        let Self { home, connection, generation, backend_pid, .. } = self;
        let idle = Idle { connection, generation, backend_pid, since: Instant::now() };
        home.idle.lock().push(idle);
    }

    /// The server's process behind this connection.
    pub(crate) fn backend_pid(&self) -> i32 {
        self.backend_pid
    }
}

impl Deref for Lease<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_name_several_hosts() {
        let hosts = parse_url("postgres://u:p,w@a:1,b:2/d?sslmode=disable").expect("two hosts");
        let found: Vec<_> = hosts.iter().map(|options| (options.get_host(), options.get_port())).collect();
        assert_eq!(found, [("a", 1), ("b", 2)]);
        assert!(parse_url("mysql://a/d").is_err());
    }
}
