//! What lies in the archive, read without the program: files, gzip, JSON.

use super::world::World;
use flate2::read::GzDecoder;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::AssertSqlSafe;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// An export that is entered in the database, with the rows that its file holds.
#[derive(Debug)]
pub(crate) struct ArchivedExport {
    pub(crate) id: i64,
    pub(crate) table: String,
    pub(crate) lines: Vec<String>,
}

/// The rows of a query, one text each.
pub(crate) async fn texts(world: &World, sql: &str) -> Vec<String> {
    let mut connection = world.database.connect().await;
    let found = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&mut connection).await;
    found.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Each row of a table as JSON.
pub(crate) async fn rows_of(world: &World, table: &str) -> BTreeSet<String> {
    texts(world, &format!("select row_to_json(it)::text from public.{table} as it")).await.into_iter().collect()
}

/// Every file in the archive.
pub(crate) fn files(archive: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(archive).expect("the archive is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Reads every export that the database names, and compares files, manifests and what is entered.
pub(crate) async fn exports(world: &World) -> Vec<ArchivedExport> {
    type Row = (i64, String, i64, String, String, String, Vec<u8>, Vec<u8>);
    let mut connection = world.database.connect().await;
    let rows: Vec<Row> = sqlx::query_as(
        "select id, table_name, row_count, location, file, manifest, file_sha256, manifest_sha256 from ledger.export order by id",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the tables are there");
    rows.into_iter()
        .map(|(id, table, count, location, file, manifest, file_sha256, manifest_sha256)| {
            let folder = PathBuf::from(location.strip_prefix("file://").expect("a folder"));
            let packed = fs::read(folder.join(&file)).expect("the file is there");
            assert_eq!(Sha256::digest(&packed).as_slice(), file_sha256, "{file}");
            let manifest = fs::read(folder.join(manifest)).expect("the manifest is there");
            assert_eq!(Sha256::digest(&manifest).as_slice(), manifest_sha256, "the manifest of {file}");
            let mut text = String::new();
            GzDecoder::new(&packed[..]).read_to_string(&mut text).expect("gzip");
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
            let hex: String = file_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!((manifest["rows"].as_i64(), lines.len()), (Some(count), usize::try_from(count).expect("few")));
            assert_eq!((manifest["sha256"].as_str(), manifest["table"].as_str()), (Some(&*hex), Some(&*table)));
            ArchivedExport { id, table, lines }
        })
        .collect()
}
