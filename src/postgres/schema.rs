//! The schema of the database. Only `ledgerd migrate` applies migrations; all other code only reads their state.

use crate::postgres::connections::Connections;
use crate::postgres::remedy::{DatabaseError, advised};
use sqlx::PgConnection;
use sqlx::migrate::{MigrateError, Migrator};
use std::sync::LazyLock;

static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.dangerous_set_table_name("ledger.migration");
    migrator.create_schema("ledger");
    migrator
});

/// What the database says about its migrations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// As this program expects.
    Current,
    /// These versions are missing.
    Behind(Vec<i64>),
    /// A newer program added these versions.
    Ahead(Vec<i64>),
    /// These versions were applied from other files than this program's.
    Altered(Vec<i64>),
}

impl SchemaState {
    /// What is wrong and what to do, as one sentence; `None` when all is well.
    pub fn complaint(&self) -> Option<String> {
        match self {
            SchemaState::Current => None,
            SchemaState::Behind(missing) => Some(format!(
                "the database lacks the migrations {missing:?}: run `ledgerd migrate` as the owner of the database"
            )),
            SchemaState::Ahead(unknown) => Some(format!(
                "the database has the migrations {unknown:?}, which this ledgerd {} does not know: install the newer ledgerd",
                env!("CARGO_PKG_VERSION")
            )),
            SchemaState::Altered(versions) => Some(format!(
                "the migrations {versions:?} were applied from other files than those of this ledgerd {}: install the ledgerd that applied them",
                env!("CARGO_PKG_VERSION")
            )),
        }
    }
}

/// A migration that was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its version, from 1.
    pub version: i64,
    pub description: String,
    /// SHA-384 of its file, in hexadecimal.
    pub checksum: String,
    /// When, in microseconds since 1970.
    pub installed_on_us: i64,
}

/// Compares the database with this program.
pub async fn state(connections: &Connections) -> Result<SchemaState, DatabaseError> {
    connections.run("reading the schema's state", read_state).await
}

async fn read_state(connection: &mut PgConnection) -> Result<SchemaState, sqlx::Error> {
    let exists: bool =
        sqlx::query_scalar("select to_regclass('ledger.migration') is not null").fetch_one(&mut *connection).await?;
    let applied: Vec<(i64, Vec<u8>)> = if exists {
        sqlx::query_as("select version, checksum from ledger.migration where success order by version")
            .fetch_all(connection)
            .await?
    } else {
        Vec::new()
    };
    let missing: Vec<i64> = MIGRATOR
        .iter()
        .map(|migration| migration.version)
        .filter(|version| applied.iter().all(|(applied, _)| applied != version))
        .collect();
    let unknown: Vec<i64> =
        applied.iter().map(|(version, _)| *version).filter(|version| !MIGRATOR.version_exists(*version)).collect();
    let altered: Vec<i64> = MIGRATOR
        .iter()
        .filter(|ours| {
            applied.iter().any(|(version, checksum)| *version == ours.version && checksum[..] != ours.checksum[..])
        })
        .map(|migration| migration.version)
        .collect();
    Ok(match (missing.is_empty(), unknown.is_empty(), altered.is_empty()) {
        (_, false, _) => SchemaState::Ahead(unknown),
        (_, _, false) => SchemaState::Altered(altered),
        (false, ..) => SchemaState::Behind(missing),
        _ => SchemaState::Current,
    })
}

/// Applies what is missing, and gives all applied migrations.
pub async fn migrate(connections: &Connections) -> Result<Vec<Applied>, DatabaseError> {
    let mut lease = connections.lease().await?;
    let connection: &mut PgConnection = &mut lease;
    // A migration may take longer than a statement of the daemon; and it is declared to the guards.
    let session = "set statement_timeout = 0; set ledgerd.migrating = on";
    sqlx::raw_sql(session).execute(&mut *connection).await.map_err(DatabaseError::new)?;
    MIGRATOR.run_direct(None, &mut *connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            advised(error, "run `ledgerd migrate` as a superuser")
        }
        error => DatabaseError::of_the_operator(error.to_string()),
    })?;
    let applied: Vec<(i64, String, String, i64)> = sqlx::query_as(
        "select version, description, encode(checksum, 'hex'), (extract(epoch from installed_on) * 1000000)::bigint
        from ledger.migration
        where success
        order by version",
    )
    .fetch_all(connection)
    .await
    .map_err(DatabaseError::new)?;
    Ok(applied
        .into_iter()
        .map(|(version, description, checksum, installed_on_us)| Applied {
            version,
            description,
            checksum,
            installed_on_us,
        })
        .collect())
}

/// Whether one of the migrations has this text in it.
pub(crate) fn is_of_a_migration(text: &str) -> bool {
    MIGRATOR.iter().any(|migration| migration.sql.as_str().contains(text))
}
