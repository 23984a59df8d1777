//! The checks of whole tables, which run after all entries were checked: they find rows that no entry accounts for.

use crate::postgres::remedy::DatabaseError;
use crate::record::lane::Lane;
use crate::record::table::Table;
use crate::verify::days::{Days, Part, Sums};
use crate::verify::findings::{Finding, Findings, shown};
use crate::verify::fingerprint::{Fingerprint, Key};
use crate::verify::migrations::Migration;
use crate::verify::removal::Removal;
use crate::verify::snapshot::pages::{key_of, read_key};
use crate::verify::snapshot::{Snapshot, answer};
use crate::verify::stored::RowKey;
use crate::verify::tree::{LEVEL_MAX, TreeCheck, superfluous};
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

/// How many of a kind are listed; all are counted.
const LISTED_MAX: i64 = 1000;

/// So many keys are taken from the server before the clock is looked at.
const ROWS_AT_A_TIME: usize = 1024;

/// A table whose every row some entry made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimedRows {
    Rows(Table),
    DeadLetters,
    /// What is kept of bytes that were given up.
    Erased,
}

/// What entries claim: all of custody but the bytes.
const CLAIMS: &str = "
    select batch.first_leaf + item.position - 1 as leaf_index, item.*
    from ledger.batch
    cross join lateral unnest(batch.subjects, batch.dispositions, batch.record_ids, batch.row_ids)
        with ordinality as item (subject, disposition, record_id, row_id, position)";

/// Which entries are recorded in a table, by their lanes: registry files add lanes of audit events alone.
fn recorded_in(table: Table) -> String {
    let other = Lane::BUILT_IN.into_iter().filter(|lane| lane.table() != Table::AuditEvents);
    let (of_table, of_others): (Vec<Lane>, Vec<Lane>) = other.partition(|lane| lane.table() == table);
    let (is, lanes) = if of_table.is_empty() { ("not in", of_others) } else { ("in", of_table) };
    let lanes: Vec<String> = lanes.iter().map(|lane| format!("'{lane}'")).collect();
    format!("entry.disposition = 'r' and split_part(entry.subject, '.', 2) {is} ({})", lanes.join(", "))
}

impl Snapshot {
    fn claimed(&self, claimed: ClaimedRows) -> (&'static str, &'static str, &'static str, String) {
        match claimed {
            ClaimedRows::DeadLetters => {
                ("ledger.dead_letter", "leaf_index", "leaf_index", "entry.disposition = 'x'".to_owned())
            }
            ClaimedRows::Erased => ("ledger.erased", "leaf_index", "leaf_index", "true".to_owned()),
            ClaimedRows::Rows(table) => {
                let claim = if table.rows().has_uuid { "record_id" } else { "row_id" };
                (self.shape.stored_in(table), "id", claim, recorded_in(table))
            }
        }
    }

    /// The fingerprint of all rows of a table.
    pub async fn fingerprint(&self, claimed: ClaimedRows, key: &Key) -> Result<Fingerprint, DatabaseError> {
        let (table, ..) = self.claimed(claimed);
        let id = match claimed {
            ClaimedRows::Rows(table) => key_of(table),
            ClaimedRows::DeadLetters | ClaimedRows::Erased => "leaf_index::bigint",
        };
        let read = |row: &PgRow| match claimed {
            ClaimedRows::Rows(table) => read_key(row, table),
            ClaimedRows::DeadLetters | ClaimedRows::Erased => row.try_get(0).map(RowKey::Number),
        };
        let query = format!("select {id} from {table}");
        self.with(async |reader| {
            let mut fingerprint = Fingerprint::default();
            let mut rows = sqlx::query(AssertSqlSafe(query)).fetch(reader).ready_chunks(ROWS_AT_A_TIME);
            while let Some(rows) = answer(async { Ok(rows.next().await) }).await? {
                for row in rows {
                    let name = row.and_then(|row| read(&row)).map_err(DatabaseError::new)?;
                    fingerprint.add(key, &name);
                }
            }
            Ok(fingerprint)
        })
        .await
    }

    /// Names the rows that no entry claims, and those that several do.
    pub async fn unclaimed(&self, claimed: ClaimedRows, findings: &mut Findings) -> Result<(), DatabaseError> {
        let (table, id, claim, claims) = self.claimed(claimed);
        let name = match claimed {
            ClaimedRows::Rows(table) => table.rows().name(),
            ClaimedRows::DeadLetters | ClaimedRows::Erased => table,
        };
        let orphans = format!(
            "select it.{id}::text, count(*) over (), null::text
            from {table} as it
            where not exists (
                select from ({CLAIMS}) as entry where {claims} and entry.{claim}::text = it.{id}::text
            )
            order by 1 limit {LISTED_MAX}"
        );
        let shared = format!(
            "select entry.{claim}::text, count(*) over (), string_agg(entry.leaf_index::text, ', ' order by entry.leaf_index)
            from ({CLAIMS}) as entry
            where {claims} and entry.{claim} is not null
            group by entry.{claim} having count(*) > 1
            order by 1 limit {LISTED_MAX}"
        );
        for query in [orphans, shared] {
            let ask = async |reader: &mut sqlx::PgConnection| {
                answer(sqlx::query_as(AssertSqlSafe(query)).fetch_all(reader)).await
            };
            let found: Vec<(String, i64, Option<String>)> = self.with(ask).await?;
            let rest = found.first().map_or(0, |(_, all, _)| *all) - i64::try_from(found.len()).unwrap_or(0);
            for (id_found, _, leaves) in found {
                let says = match leaves {
                    None => "is that of a row which no entry of custody made".to_owned(),
                    Some(leaves) => format!("is claimed by more than one entry: leaves {leaves}"),
                };
                findings.add(Finding::new(name, id_found, id, says));
            }
            findings.count(&Finding::new(name, "", id, ""), u64::try_from(rest).unwrap_or(0));
        }
        Ok(())
    }

    /// Subtrees that no leaves complete, and leaves that are far beyond all others.
    pub async fn superfluous(&self, tree: &TreeCheck, end: i64, findings: &mut Findings) -> Result<(), DatabaseError> {
        let levels: Vec<i16> = (1..=LEVEL_MAX).collect();
        let ends: Vec<i64> = levels.iter().map(|level| tree.subtrees(*level)).collect();
        let query = "select stored.level, stored.index
            from ledger.subtree as stored
            left join unnest($1::smallint[], $2::bigint[]) as wanted (level, past) on wanted.level = stored.level
            where stored.index >= coalesce(wanted.past, 0) or stored.index < 0
            order by 1, 2 limit $3";
        let ask = async |reader: &mut sqlx::PgConnection| {
            answer(sqlx::query_as(query).bind(levels).bind(ends).bind(LISTED_MAX).fetch_all(reader)).await
        };
        let subtrees: Vec<(i16, i64)> = self.with(ask).await?;
        for (level, index) in subtrees {
            findings.add(superfluous(level, index));
        }
        let query = "select first_leaf from ledger.batch where first_leaf >= $1 or first_leaf < 0 order by 1 limit $2";
        let ask = async |reader: &mut sqlx::PgConnection| {
            answer(sqlx::query_scalar(query).bind(end).bind(LISTED_MAX).fetch_all(reader)).await
        };
        let leaves: Vec<i64> = self.with(ask).await?;
        for leaf in leaves {
            findings.add(Finding::new("ledger.entry", leaf, "leaf_index", "is far from all other leaves"));
        }
        Ok(())
    }

    /// Adds up the days.
    pub async fn days(&self, days: &mut Days<'_>, findings: &mut Findings) -> Result<(), DatabaseError> {
        let removed = if self.shape.retention {
            "union all
            select left(row_key, -11), right(row_key, 10), 2, tokens_input::text, tokens_output::text, exact_cost::text, null, null,
                export_id
            from ledger.removal
            where table_name = 'token_ledger'"
        } else {
            ""
        };
        let query = format!(
            "select agent_name::text, date::text, 0, tokens_input::text, tokens_output::text, cost_usd::text, null::text, null::text,
                null::bigint
            from ledger.token_usage
            union all
            select agent_name::text, date::text, 1, total_tokens_input::text, total_tokens_output::text, exact_cost::text,
                total_cost::text, budget_status::text, null
            from public.token_ledger
            {removed}
            order by 1, 2"
        );
        self.with(async |reader| {
            let mut rows = sqlx::query(AssertSqlSafe(query)).fetch(reader);
            while let Some(row) = answer(rows.try_next()).await? {
                let (key, part) = read_part(&row).map_err(DatabaseError::new)?;
                days.take(&key, part, findings);
            }
            days.finish(findings);
            Ok(())
        })
        .await
    }

    /// Council votes that name an event which there is not: what dangles is no difference.
    pub async fn dangling(&self) -> Result<(Vec<String>, i64), DatabaseError> {
        let query = "select trail.id, trail.trail_id::text, trail.ledger_ref::text, count(*) over ()
            from public.decision_trails as trail
            where trail.ledger_ref is not null
                and not exists (select from public.audit_events as event where event.event_id = trail.ledger_ref)
            order by trail.id limit $1";
        let ask = async |reader: &mut sqlx::PgConnection| {
            answer(sqlx::query_as(query).bind(LISTED_MAX).fetch_all(reader)).await
        };
        let found: Vec<(i64, String, String, i64)> = self.with(ask).await?;
        let all = found.first().map_or(0, |(.., all)| *all);
        let line = |(id, trail_id, reference, _): (i64, String, String, i64)| {
            format!("decision_trails id {id} ({trail_id}): ledger_ref {} is no event (yet)", shown(Some(&reference)))
        };
        Ok((found.into_iter().map(line).collect(), all))
    }

    /// The migrations that the database says were applied.
    pub async fn migrations(&self) -> Result<Vec<Migration>, DatabaseError> {
        let query = "select version, description, encode(checksum, 'hex'),
                case when isfinite(installed_on) then (extract(epoch from installed_on) * 1000000)::bigint end
            from ledger.migration where success order by version";
        let ask = async |reader: &mut sqlx::PgConnection| answer(sqlx::query_as(query).fetch_all(reader)).await;
        let rows: Vec<(i64, String, String, Option<i64>)> = self.with(ask).await?;
        let migration = |(version, description, checksum, installed_on_us)| Migration {
            version,
            description,
            checksum,
            installed_on_us,
        };
        Ok(rows.into_iter().map(migration).collect())
    }

    /// Budget alerts that cannot have been raised, and removals of rows that are there.
    pub async fn implausible(&self, findings: &mut Findings) -> Result<(), DatabaseError> {
        let alerts = "select id::text, field from (
                select id, case
                    when old_status not in ('GREEN', 'YELLOW', 'RED', 'EXCEEDED') then 'old_status'
                    when new_status not in ('GREEN', 'YELLOW', 'RED', 'EXCEEDED') or new_status = old_status then 'new_status'
                    when limit_key not in (select metric_key from public.economic_metrics) then 'limit_key'
                    when published_at < raised_at then 'published_at'
                end as field
                from ledger.budget_alert
            ) as alert
            where field is not null order by id limit $1";
        self.add_all(alerts, "ledger.budget_alert", "is none that an alert can have", findings).await?;
        if self.shape.retention {
            let removals = "select removal.id::text, 'row_key'
                from ledger.removal
                where case table_name
                    when 'economic_metrics' then exists (select from public.economic_metrics where id::text = row_key)
                    when 'audit_events' then exists (select from public.audit_events where event_id = row_key)
                    when 'decision_trails' then exists (select from public.decision_trails where trail_id = row_key)
                    else false
                end
                order by removal.id limit $1";
            self.add_all(removals, "ledger.removal", "is that of a row which is there", findings).await?;
        }
        Ok(())
    }

    async fn add_all(
        &self,
        query: &'static str,
        table: &str,
        says: &str,
        findings: &mut Findings,
    ) -> Result<(), DatabaseError> {
        let ask = async |reader: &mut sqlx::PgConnection| {
            answer(sqlx::query_as(query).bind(LISTED_MAX).fetch_all(reader)).await
        };
        let rows: Vec<(String, String)> = self.with(ask).await?;
        for (id, field) in rows {
            findings.add(Finding::new(table, id, &field, says));
        }
        Ok(())
    }
}

fn read_part(row: &PgRow) -> Result<(String, Part), sqlx::Error> {
    let text = |index: usize| row.try_get::<Option<String>, _>(index);
    let key = format!("{}/{}", text(0)?.unwrap_or_default(), text(1)?.unwrap_or_default());
    let sums = Sums::parse(&[text(3)?, text(4)?, text(5)?]);
    Ok((
        key,
        match row.try_get::<i32, _>(2)? {
            0 => Part::Usage(sums),
            1 => Part::Day(sums, text(6)?, text(7)?),
            _ => Part::Removed(sums, Removal { export_id: row.try_get(8)?, erasure_id: None, leaf_index: None }),
        },
    ))
}
