//! Which connections are there? A fixed number, each used by one caller at a time, and dropped at the first doubt.
//!
//! A pool that hides why it cannot connect, and that keeps a connection after a timeout, would serve neither the operator
//! nor the commit path; so connections are handed out here, and come back only when their user says that they are well.

use super::remedy::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// Bounds of every conversation with the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connecting, authentication included.
    pub connect: Duration,
    /// One statement; the server itself ends it then.
    pub statement: Duration,
}

impl Limits {
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

/// The connections to one database.
#[derive(Debug)]
pub struct Connections {
    options: Mutex<PgConnectOptions>,
    limits: Limits,
    permits: Semaphore,
    idle: Mutex<Vec<(PgConnection, Instant)>>,
}

impl Connections {
    /// Connects to nothing yet. At most `connections_max` are open at a time.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the URL; it does not repeat it, for it may hold a password.
    pub fn new(url: &str, limits: Limits, connections_max: usize) -> Result<Self, String> {
        Ok(Self {
            options: Mutex::new(parse_url(url)?),
            limits,
            permits: Semaphore::new(connections_max),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Uses another URL from now on: rotated credentials, or another host.
    pub fn set_url(&self, url: &str) -> Result<(), String> {
        let options = parse_url(url)?;
        *self.options.lock().unwrap_or_else(PoisonError::into_inner) = options;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    /// The bounds in force.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Waits for a free connection, in the order of asking.
    pub async fn lease(&self) -> Result<Lease<'_>, DatabaseError> {
        let limit = self.limits.transaction();
        let permit = timeout(limit, self.permits.acquire()).await;
        let permit = permit.map_err(|_| DatabaseError::silent("waiting for a free connection", limit))?;
        let permit = permit.expect("the semaphore is never closed");
        while let Some((mut connection, idle_since)) = self.take_idle() {
            if idle_since.elapsed() < TRUSTED_IDLE {
                return Ok(Lease { home: self, connection, _permit: permit });
            }
            if matches!(timeout(self.limits.connect, connection.ping()).await, Ok(Ok(()))) {
                return Ok(Lease { home: self, connection, _permit: permit });
            }
        }
        let connection = self.connect().await?;
        Ok(Lease { home: self, connection, _permit: permit })
    }

    fn take_idle(&self) -> Option<(PgConnection, Instant)> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<PgConnection, DatabaseError> {
        let options = self.options.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let connecting = async {
            let mut connection = options.connect().await?;
            self.prepare_session(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        match timeout(self.limits.connect, connecting).await {
            Ok(connected) => connected.map_err(DatabaseError::connecting),
            Err(_) => Err(DatabaseError::silent("connecting", self.limits.connect)),
        }
    }

    /// Bounds the session on the server's side too. Where the server was told not to wait for the disk at a commit, this
    /// session waits all the same: an acknowledgement is a promise.
    async fn prepare_session(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "select
                set_config('statement_timeout', $1, false),
                set_config('lock_timeout', $2, false),
                set_config('idle_in_transaction_session_timeout', $1, false),
                set_config('timezone', 'UTC', false),
                set_config('datestyle', 'ISO, YMD', false),
                set_config('search_path', 'pg_catalog', false),
                set_config(
                    'synchronous_commit',
                    case current_setting('synchronous_commit') when 'off' then 'on' else current_setting('synchronous_commit') end,
                    false
                )",
        )
        .bind(format!("{}ms", self.limits.statement.as_millis()))
        .bind(format!("{}ms", self.limits.lock().as_millis()))
        .execute(connection)
        .await?;
        Ok(())
    }
}

fn parse_url(url: &str) -> Result<PgConnectOptions, String> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("it must begin with postgres:// or postgresql://".to_owned());
    }
    let options = PgConnectOptions::from_str(url).map_err(|error| error.to_string())?;
    Ok(options.application_name("ledgerd").disable_statement_logging())
}

/// A connection in use. Dropping it closes it, which rolls back whatever it was doing; [`Lease::keep`] gives it back.
#[derive(Debug)]
pub struct Lease<'a> {
    home: &'a Connections,
    connection: PgConnection,
    _permit: SemaphorePermit<'a>,
}

impl Lease<'_> {
    /// The connection is well, and outside a transaction.
    pub fn keep(self) {
        self.home.idle.lock().unwrap_or_else(PoisonError::into_inner).push((self.connection, Instant::now()));
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
