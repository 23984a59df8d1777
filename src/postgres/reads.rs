//! The commands' read-only queries on the content of the ledger.

use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use sqlx::Row;
use sqlx::postgres::PgRow;
use std::collections::HashMap;

#[derive(Clone, Debug)]
pub struct Summary {
    /// Leaves of the tree: messages in custody.
    pub tree_size: i64,
    /// The tree's root, in hexadecimal.
    pub root: String,
    /// Messages by what became of them.
    pub recorded: i64,
    pub duplicates: i64,
    pub rejected: i64,
    /// Dead letters that did not reach their subject yet.
    pub unpublished: i64,
    /// When the newest message was committed.
    pub last_commit: Option<String>,
    pub epochs: i64,
}

/// Sums up the ledger. Only what is no record is counted: records may be more than can be counted while somebody waits.
pub async fn summary(connections: &Connections) -> Result<Summary, DatabaseError> {
    let row = one(
        connections,
        "select head.size as tree_size, encode(head.root, 'hex') as root,
            head.size - duplicate.entries - rejected.entries as recorded,
            duplicate.entries as duplicates,
            rejected.entries as rejected,
            (select count(*) from ledger.dead_letter where published_at is null) as unpublished,
            (select to_char(committed_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')
                from ledger.batch order by first_leaf desc limit 1) as last_commit,
            (select count(*) from ledger.epoch) as epochs
        from ledger.tree_head as head
        cross join (
            select coalesce(sum(duplicates), 0)::bigint as entries from ledger.batch where duplicates > 0
        ) as duplicate
        cross join (select count(*) as entries from ledger.dead_letter) as rejected",
    )
    .await?;
    let read = || {
        Ok::<_, sqlx::Error>(Summary {
            tree_size: row.try_get("tree_size")?,
            root: row.try_get("root")?,
            recorded: row.try_get("recorded")?,
            duplicates: row.try_get("duplicates")?,
            rejected: row.try_get("rejected")?,
            unpublished: row.try_get("unpublished")?,
            last_commit: row.try_get("last_commit")?,
            epochs: row.try_get("epochs")?,
        })
    };
    read().map_err(DatabaseError::new)
}

/// How many dead letters did not reach their subject yet.
pub async fn unpublished(connections: &Connections) -> Result<i64, DatabaseError> {
    let row = one(connections, "select count(*) from ledger.dead_letter where published_at is null").await?;
    row.try_get(0).map_err(DatabaseError::new)
}

async fn one(connections: &Connections, question: &'static str) -> Result<PgRow, DatabaseError> {
    connections
        .run("reading what the ledger holds", async |connection| sqlx::query(question).fetch_one(connection).await)
        .await
}

/// The value in force of each metric, by its key.
pub async fn metrics_in_force(connections: &Connections) -> Result<HashMap<String, String>, DatabaseError> {
    let reading = connections.run("reading the metrics in force", async |connection| {
        sqlx::query_as("select metric_key, metric_value::text from ledger.metric_in_force").fetch_all(connection).await
    });
    let rows: Vec<(String, String)> = reading.await?;
    Ok(rows.into_iter().collect())
}

/// What `ledgerd check` asks a server about itself.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Major and minor version as one number, such as 150018.
    pub version_number: i32,
    pub version: String,
    pub role: String,
    /// Whether it is a superuser, which bypasses every grant.
    pub is_superuser: bool,
    /// Whether the server or the session takes no writes.
    pub is_read_only: bool,
    /// Whether a commit waits for the disk.
    pub synchronous_commit: String,
    /// Whether the server writes to the disk at all.
    pub fsync: String,
    /// Whether torn pages are survived.
    pub full_page_writes: String,
    /// The server's clock, in nanoseconds since 1970.
    pub clock_ns: i64,
    pub encoding: String,
}

/// Asks the server about itself.
pub async fn server_facts(connections: &Connections) -> Result<ServerFacts, DatabaseError> {
    let row = one(
        connections,
        "select current_setting('server_version_num')::integer as version_number,
            current_setting('server_version') as version,
            current_user::text as role,
            (select rolsuper from pg_roles where rolname = current_user) as is_superuser,
            pg_is_in_recovery() or current_setting('transaction_read_only') = 'on' as is_read_only,
            (select reset_val from pg_settings where name = 'synchronous_commit') as synchronous_commit,
            current_setting('fsync') as fsync,
            current_setting('full_page_writes') as full_page_writes,
            (extract(epoch from clock_timestamp()) * 1000000)::bigint * 1000 as clock_ns,
            getdatabaseencoding()::text as encoding",
    )
    .await?;
    let read = || {
        Ok::<_, sqlx::Error>(ServerFacts {
            version_number: row.try_get("version_number")?,
            version: row.try_get("version")?,
            role: row.try_get("role")?,
            is_superuser: row.try_get("is_superuser")?,
            is_read_only: row.try_get("is_read_only")?,
            synchronous_commit: row.try_get("synchronous_commit")?,
            fsync: row.try_get("fsync")?,
            full_page_writes: row.try_get("full_page_writes")?,
            clock_ns: row.try_get("clock_ns")?,
            encoding: row.try_get("encoding")?,
        })
    };
    read().map_err(DatabaseError::new)
}
