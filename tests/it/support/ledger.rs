//! The check after each fault, that everything is there, once, and as it was published: of every message, every row,
//! every dead letter, the tree, and what the consumers still hold.

use super::dead_letters::check_dead_letters;
use super::events::{Expectation, OTHER_LANES, id_field, spec_hash};
use super::published::{Publication, Published};
use super::tables::check_tables;
use super::tree::check_tree;
use super::world::World;
use super::{SOON, eventually, when};
use futures_util::TryStreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, FromRow};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// How long the daemon may take to work off what it has, after a fault has ended.
const SETTLED_WITHIN: Duration = Duration::from_mins(2);

/// The stream that the daemon reads.
pub(crate) const STREAM: &str = "LEDGER";

/// What the check has counted. It panics where something is lost, so `lost` is 0: it is there to be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) published: usize,
    pub(crate) rows: usize,
    pub(crate) duplicates: usize,
    pub(crate) rejects: usize,
    pub(crate) lost: usize,
}

/// Waits until the daemon has worked everything off, and checks the whole ledger against what was published.
///
/// # Panics
/// With every difference that it found.
pub(crate) async fn check_ledger(world: &World, published: &Published) -> Counts {
    settled(world, published).await;
    check_settled_ledger(world, published).await
}

/// Waits until every message has its entry, every dead letter is published, every position is as far as its lane is stored, and everything is acknowledged.
pub(crate) async fn settled(world: &World, published: &Published) {
    let jetstream = world.jetstream().await;
    eventually("the daemon has worked everything off", SETTLED_WITHIN, async || {
        let mut connection = PgConnection::connect(&world.database.url()).await.map_err(|error| error.to_string())?;
        let (entries, unpublished): (i64, i64) = sqlx::query_as(
            "select (select count(*) from ledger.entry join ledger.epoch using (epoch) where stream = $1),
                    (select count(*) from ledger.dead_letter where published_at is null)
                    + (select count(*) from ledger.budget_alert where published_at is null)",
        )
        .bind(STREAM)
        .fetch_one(&mut connection)
        .await
        .map_err(|error| error.to_string())?;
        let behind: Vec<(String, i64, i64)> = sqlx::query_as(
            "select p.lane, p.sequence, last.sequence
            from ledger.position as p
            join (
                select epoch, split_part(subject, '.', 2) as lane, max(sequence) as sequence from ledger.entry group by 1, 2
            ) as last using (epoch, lane)
            where p.sequence < last.sequence",
        )
        .fetch_all(&mut connection)
        .await
        .map_err(|error| error.to_string())?;
        connection.close().await.map_err(|error| error.to_string())?;
        when(behind.is_empty(), || format!("lanes whose position lies below what is stored of them: {behind:?}"))?;
        let published = published.all().len();
        when(usize::try_from(entries).is_ok_and(|entries| entries >= published) && unpublished == 0, || {
            format!("{entries} entries of {published} published; {unpublished} dead letters and alerts are not published yet")
        })?;
        let stream = jetstream.get_stream(STREAM).await.map_err(|error| error.to_string())?;
        let consumers: Vec<_> = stream.consumers().try_collect().await.map_err(|error| error.to_string())?;
        let unacknowledged: Vec<_> = consumers
            .iter()
            .filter(|consumer| consumer.num_ack_pending > 0)
            .map(|consumer| format!("{}: {}", consumer.name, consumer.num_ack_pending))
            .collect();
        when(unacknowledged.is_empty(), || format!("not acknowledged: {}", unacknowledged.join(", ")))
    })
    .await;
}

/// Waits until each lane has an owner, and so a connection of its own.
pub(crate) async fn all_lanes_are_owned(world: &World) {
    eventually("each lane has an owner", SOON, async || {
        let owned = world.database.count("select count(*) from ledger.position where owner is not null").await;
        when(owned == 15, || format!("{owned} of 15"))
    })
    .await;
}

/// The same check without waiting, for a moment at which nothing moves.
pub(crate) async fn check_settled_ledger(world: &World, published: &Published) -> Counts {
    let mut connection = world.database.connect().await;
    let mut faults = Faults::default();
    let entries = Entry::read_all(&mut connection).await.expect("the tables are there");
    let rows = AuditRow::read_all(&mut connection).await.expect("the tables are there");

    if let Some((entry, expected)) = entries.iter().zip(0..).find(|(entry, expected)| entry.leaf_index != *expected) {
        faults.unless(false, || format!("leaf {expected} is missing: the next is {}", entry.leaf_index));
    }
    let hashes: Vec<Vec<u8>> = entries.iter().map(|entry| entry.leaf_hash.clone()).collect();
    check_tree(&mut connection, &hashes, &mut faults).await.expect("the tables are there");

    let pairs = pair(published, &entries, &mut faults);
    let mut counts = Counts { published: published.all().len(), rows: 0, duplicates: 0, rejects: 0, lost: 0 };
    for (publication, entry) in &pairs {
        check_entry(publication, entry, &mut faults);
        match entry.disposition.as_str() {
            "recorded" => counts.rows += 1,
            "duplicate" => counts.duplicates += 1,
            _ => counts.rejects += 1,
        }
    }
    check_dispositions(&pairs, &mut faults);
    check_rows(&entries, &rows, &mut faults);
    check_tables(&mut connection, &mut faults).await.expect("the tables are there");
    check_dead_letters(world, &mut connection, &entries, &pairs, &mut faults).await;
    faults.report();
    counts
}

/// What is wrong with the ledger.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    pub(super) fn unless(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.0.push(fault());
        }
    }

    /// Panics with the faults, if there are any.
    fn report(&self) {
        const SHOWN: usize = 30;
        let shown = self.0.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.0.is_empty(), "the ledger has {} faults:\n{shown}", self.0.len());
    }
}

/// A row of custody.
#[derive(Debug, FromRow)]
pub(super) struct Entry {
    pub(super) leaf_index: i64,
    pub(super) stream: String,
    pub(super) stream_created_ns: i64,
    pub(super) epoch: i32,
    pub(super) sequence: i64,
    pub(super) subject: String,
    headers: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    payload_sha256: Vec<u8>,
    pub(super) disposition: String,
    record_id: Option<String>,
    row_id: Option<i64>,
    leaf_hash: Vec<u8>,
}

impl Entry {
    async fn read_all(connection: &mut PgConnection) -> Result<Vec<Self>, sqlx::Error> {
        sqlx::query_as(
            "select leaf_index, stream, stream_created_ns, epoch, sequence, subject, headers, payload, payload_sha256,
                    disposition, record_id, row_id, leaf_hash
             from ledger.entry join ledger.epoch using (epoch) order by leaf_index",
        )
        .fetch_all(connection)
        .await
    }

    fn lane(&self) -> Option<&str> {
        self.subject.split('.').nth(1)
    }

    fn fields(&self) -> Value {
        serde_json::from_slice(self.payload.as_deref().unwrap_or_default()).unwrap_or_default()
    }

    /// What the program itself did leaves a record, which nobody published.
    fn is_the_programs_own(&self) -> bool {
        const ACTIONS: [&str; 5] = [
            "SCHEMA_MIGRATION",
            "RETENTION_EXPORTED",
            "RECORDS_DELETED",
            "DEAD_LETTER_REQUEUED",
            "DEAD_LETTER_DISCARDED",
        ];
        self.fields()["action"].as_str().is_some_and(|action| ACTIONS.contains(&action))
    }

    pub(super) fn name(&self) -> String {
        format!("{} {} (epoch {}, {})", self.stream, self.sequence, self.epoch, self.subject)
    }
}

#[derive(Debug, FromRow)]
struct AuditRow {
    id: i64,
    event_id: String,
    actor: String,
    action: String,
    outcome: String,
    details: Option<String>,
    task_id: Option<String>,
    integrity_hash: String,
    timestamp_text: String,
    /// Whether the column `timestamp` is the moment that the text names, in UTC.
    moment_agrees: bool,
}

impl AuditRow {
    async fn read_all(connection: &mut PgConnection) -> Result<HashMap<i64, Self>, sqlx::Error> {
        sqlx::raw_sql("set time zone 'UTC'").execute(&mut *connection).await?;
        let rows: Vec<Self> = sqlx::query_as(
            "select id, event_id, actor, action, outcome, details::text as details, task_id, integrity_hash, timestamp_text,
                    abs(extract(epoch from timestamp - (timestamp_text::timestamptz at time zone 'UTC'))) < 0.000002
                        as moment_agrees
             from public.audit_events",
        )
        .fetch_all(connection)
        .await?;
        Ok(rows.into_iter().map(|row| (row.id, row)).collect())
    }
}

/// What was published, and the entry that it became.
pub(super) type Pairs<'a> = Vec<(&'a Publication, &'a Entry)>;

/// Finds the entry of each publication. The epochs are numbered by the database, in the order in which they came.
fn pair<'a>(published: &'a Published, entries: &'a [Entry], faults: &mut Faults) -> Pairs<'a> {
    let ours: Vec<&Entry> = entries.iter().filter(|entry| entry.stream == STREAM).collect();
    let numbers: BTreeSet<i32> = ours.iter().map(|entry| entry.epoch).collect();
    let published_epochs: BTreeSet<usize> = published.all().iter().map(|publication| publication.epoch).collect();
    let numbers: BTreeMap<usize, i32> = published_epochs.into_iter().zip(numbers).collect();
    let mut by_place: HashMap<(i32, i64), &Entry> = ours.iter().map(|it| ((it.epoch, it.sequence), *it)).collect();
    let mut pairs = Vec::new();
    for publication in published.all() {
        let sequence = i64::try_from(publication.sequence).expect("the stream is not that long");
        let place = numbers.get(&publication.epoch).map(|epoch| (*epoch, sequence));
        match place.and_then(|place| by_place.remove(&place)) {
            Some(entry) => pairs.push((publication, entry)),
            None => faults.unless(false, || format!("LOST: {} {sequence}", publication.outgoing.subject)),
        }
    }
    let others = entries.iter().filter(|it| it.stream != STREAM).chain(by_place.into_values());
    for entry in others {
        faults.unless(entry.is_the_programs_own(), || format!("{}: nobody published it", entry.name()));
    }
    pairs
}

/// Custody has the very bytes.
fn check_entry(publication: &Publication, entry: &Entry, faults: &mut Faults) {
    let (outgoing, name) = (&publication.outgoing, entry.name());
    faults.unless(entry.subject == outgoing.subject, || format!("{name}: published to {}", outgoing.subject));
    let kept = entry.payload.as_ref().is_none_or(|payload| *payload == outgoing.payload);
    faults.unless(kept, || format!("{name}: custody has other bytes"));
    let hashed = entry.payload_sha256 == Sha256::digest(&outgoing.payload).as_slice();
    faults.unless(hashed, || format!("{name}: payload_sha256 is of other bytes"));
    faults.unless(entry.headers == publication.headers.in_custody(), || {
        let text = |headers: &Option<Vec<u8>>| headers.as_ref().map(|it| String::from_utf8_lossy(it).into_owned());
        let (found, expected) = (text(&entry.headers), text(&publication.headers.in_custody()));
        format!("{name}: custody has the headers {found:?} instead of {expected:?}")
    });
}

/// Each message met the fate that the test expects. Of equal records one is the row, whichever was first.
fn check_dispositions(pairs: &Pairs<'_>, faults: &mut Faults) {
    let mut recorded: BTreeMap<String, usize> = BTreeMap::new();
    for (publication, entry) in pairs {
        let (expectation, found) = (publication.outgoing.expectation, entry.disposition.as_str());
        if let Expectation::Bad(reason) = expectation {
            faults.unless(found == "rejected", || format!("{}: {found}, not rejected ({reason})", entry.name()));
            continue;
        }
        faults.unless(found != "rejected", || format!("{}: rejected, not {expectation:?}", entry.name()));
        let fields: Value = serde_json::from_slice(&publication.outgoing.payload).expect("a good record is JSON");
        let lane = entry.lane().unwrap_or_default();
        let id = fields[id_field(lane)].as_str().or(entry.record_id.as_deref()).unwrap_or_default();
        faults.unless(entry.record_id.as_deref() == Some(id), || {
            format!("{}: custody names it {:?} instead of {id}", entry.name(), entry.record_id)
        });
        // A metric has no id of its own: each message is a row.
        if lane != "METRIC" {
            // Each agent names its usage itself.
            *recorded.entry(format!("{id} on {}", entry.subject)).or_default() += usize::from(found == "recorded");
        }
    }
    for (id, times) in recorded {
        faults.unless(times == 1, || format!("{id}: recorded {times} times"));
    }
}

/// Each recorded entry has one row, field by field, and there is no other row.
fn check_rows(entries: &[Entry], rows: &HashMap<i64, AuditRow>, faults: &mut Faults) {
    let is_audit = |entry: &&Entry| entry.lane().is_some_and(|lane| !OTHER_LANES.contains(&lane));
    let recorded: Vec<&Entry> = entries.iter().filter(is_audit).filter(|it| it.disposition == "recorded").collect();
    let claimed: BTreeSet<i64> = recorded.iter().filter_map(|entry| entry.row_id).collect();
    faults.unless(claimed.len() == recorded.len() && rows.len() == recorded.len(), || {
        format!("{} recorded entries name {} rows, and there are {}", recorded.len(), claimed.len(), rows.len())
    });
    for entry in recorded {
        match entry.row_id.and_then(|id| rows.get(&id)) {
            None => faults.unless(false, || format!("{}: recorded, and has no row", entry.name())),
            Some(row) => check_row(entry, row, faults),
        }
    }
}

fn check_row(entry: &Entry, row: &AuditRow, faults: &mut Faults) {
    let fields = entry.fields();
    let text = |field: &str| fields[field].as_str();
    let details = row.details.as_ref().map_or(Value::Null, |it| serde_json::from_str(it).expect("jsonb is JSON"));
    let hash = spec_hash(&row.event_id, &row.actor, &row.action, &row.outcome, &row.timestamp_text);
    let checks = [
        ("event_id", text("event_id") == Some(&row.event_id)),
        ("record_id", entry.record_id.as_ref() == Some(&row.event_id)),
        ("actor", text("actor") == Some(&row.actor)),
        ("action", text("action") == Some(&row.action)),
        ("outcome", text("outcome") == Some(&row.outcome)),
        ("task_id", text("task_id") == row.task_id.as_deref()),
        ("details", fields["details"] == details),
        // One that was absent is stamped, where the setting allows that.
        ("timestamp_text", text("timestamp").is_none_or(|timestamp| timestamp == row.timestamp_text)),
        ("timestamp", row.moment_agrees),
        ("integrity_hash", row.integrity_hash == hash),
    ];
    for (field, equal) in checks {
        faults.unless(equal, || format!("{}: row {} has another {field} than was published", entry.name(), row.id));
    }
}
