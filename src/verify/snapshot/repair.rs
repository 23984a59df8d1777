//! Recreates a damaged row from the bytes in custody, in one transaction with the audit event that records the repair.
//! Custody itself is never changed.

use crate::ingest::commit::project;
use crate::ingest::lifecycle::{Judged, References};
use crate::ingest::position::Order;
use crate::ingest::projection::Ids;
use crate::ingest::{custody, epochs};
use crate::postgres::connections::Connections;
use crate::postgres::failure::CommitFailure;
use crate::postgres::remedy::DatabaseError;
use crate::record::leaf::Disposition;
use crate::record::message::{Headers, Message};
use crate::record::row::{ExpectedValue, Pricing, Row};
use crate::record::rules::Rules;
use crate::record::table::Table;
use crate::verify::rates::Rates;
use crate::verify::repaired::{Repaired, event_id, incarnation};
use crate::verify::rows::Charge;
use crate::verify::snapshot::pages::{PAGE_BATCHES, page};
use crate::verify::snapshot::{Shape, answer, rates, shape};
use crate::verify::stored::{EntryRow, Epochs, Page, RowKey, Values};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use std::collections::BTreeMap;

/// What the making anew needs besides custody.
pub struct RepairContext<'a> {
    /// The rules that the events are judged by.
    pub rules: &'a Rules,
    pub epochs: &'a Epochs,
    /// The tier of a model, where neither record nor row says it.
    pub tier_of: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// The group of an agent, for a day that is missing.
    pub group_of: &'a (dyn Fn(&str) -> Option<String> + Sync),
}

/// How long to wait for the locks: whoever writes ends its transaction in much less.
const BEGIN: &str = "set statement_timeout = 0; set lock_timeout = '30s'; set row_security = off;
    begin isolation level read committed; set local ledgerd.migrating = on; select pg_advisory_xact_lock(hashtext('ledgerd repair'))";

/// Makes rows anew: those of these leaves, which are in their order, and these days. What cannot be is said, and left as it is.
pub async fn repair(
    connections: &Connections,
    context: &RepairContext<'_>,
    leaves: &[i64],
    days: &[String],
    mut done: impl FnMut(&Repaired),
) -> Result<Vec<String>, DatabaseError> {
    let mut session = connections.open().await?;
    let shape = shape(&mut session).await?;
    let mut failures = Vec::new();
    // Usage comes after the rates that it was charged by, and days after their usage.
    for of_usage in [false, true] {
        let rates = rates(&mut session).await?;
        let mut next = 0;
        while let Some(start) = leaves.get(next).copied() {
            let holding = "select coalesce(max(first_leaf), 0) from ledger.batch where first_leaf <= $1";
            let first: i64 = answer(sqlx::query_scalar(holding).bind(start).fetch_one(&mut session)).await?;
            let page = page(&mut session, &shape, (first, leaves[leaves.len() - 1] + 1), PAGE_BATCHES).await?;
            let last = page.entries.last().map_or(start, |entry| entry.leaf_index);
            let mut repairer =
                Repairer { session: &mut session, shape: &shape, context, rates: &rates, failures: &mut failures };
            let is_due = |entry: &&EntryRow| {
                let is_usage = entry.table == Some(Table::TokenLedger);
                is_usage == of_usage && leaves.binary_search(&entry.leaf_index).is_ok()
            };
            let due: Vec<&EntryRow> = page.entries.iter().filter(is_due).collect();
            if !due.is_empty() {
                repairer.rows(&page, &due).await?.iter().for_each(&mut done);
            }
            next += leaves[next..].partition_point(|leaf| *leaf <= last).max(1);
        }
    }
    for some in days.chunks(DAYS_AT_A_TIME) {
        let rates = Rates::default();
        let mut repairer =
            Repairer { session: &mut session, shape: &shape, context, rates: &rates, failures: &mut failures };
        repairer.days(some).await?.iter().for_each(&mut done);
    }
    Ok(failures)
}

const DAYS_AT_A_TIME: usize = 500;

struct Repairer<'a> {
    session: &'a mut PgConnection,
    shape: &'a Shape,
    context: &'a RepairContext<'a>,
    rates: &'a Rates,
    failures: &'a mut Vec<String>,
}

/// A trigger that guards a table, and how it was enabled.
struct Guard {
    table: &'static str,
    name: String,
    enabled: String,
}

impl Repairer<'_> {
    /// Makes the rows of these entries anew.
    async fn rows(&mut self, page: &Page, damaged: &[&EntryRow]) -> Result<Vec<Repaired>, DatabaseError> {
        let mut by_table: BTreeMap<Table, Vec<&EntryRow>> = BTreeMap::new();
        for entry in damaged {
            if let Some(table) = entry.table {
                by_table.entry(table).or_default().push(entry);
            }
        }
        self.run(BEGIN.to_owned()).await?;
        let mut repaired = Vec::new();
        // In the order in which every commit takes its tables, and before the tree's head, so that nobody waits in a circle.
        for (table, entries) in by_table {
            let guards = self.lower_guards(table.rows().stored_in).await?;
            for entry in entries {
                match self.row(page, table, entry).await? {
                    Ok(row) => repaired.extend(Some(row).filter(Repaired::is_change)),
                    Err(why) => self.failures.push(format!("leaf {}: {why}", entry.leaf_index)),
                }
            }
            self.raise_guards(guards).await?;
        }
        let judged = self.judge(&repaired).await?;
        let placed: Vec<&Judged> = judged.iter().collect();
        let outcomes =
            project(self.session, &placed, References::Settled, Ids::MayBeTaken).await.map_err(of_failure)?;
        let head = custody::lock_head(self.session).await.map_err(of_failure)?;
        self.append(head, &placed, &outcomes).await?;
        Ok(repaired)
    }

    /// Makes one row anew; or says why it cannot.
    async fn row(
        &mut self,
        page: &Page,
        table: Table,
        entry: &EntryRow,
    ) -> Result<Result<Repaired, String>, DatabaseError> {
        let Some(key) = entry.row_key(table) else { return Ok(Err("it names no row".to_owned())) };
        let message = message(self.context, entry);
        let derived = message
            .as_ref()
            .map(|message| Row::of(message, entry.committed_at_us.unwrap_or(0), entry.record_id.as_deref()));
        let row = match derived {
            Some(Ok(row)) => row,
            Some(Err(why)) => return Ok(Err(why)),
            None => return Ok(Err("its bytes are not kept".to_owned())),
        };
        let found = page.rows.get(&(table, key.clone()));
        let mut values = Vec::with_capacity(row.values.len());
        for expected in &row.values {
            values.push(self.value(expected).await?);
        }
        if let Some(pricing) = &row.pricing {
            match self.price(&key, pricing, &row, found, entry) {
                Ok(priced) => {
                    values.truncate(values.len() - priced.len());
                    values.extend(priced);
                }
                Err(why) => return Ok(Err(why)),
            }
        }
        let key = key.to_string();
        let old = self.delete(table, &key, &values).await?;
        let new = self.insert(table, &key, &values).await?;
        let leaf_index = Some(entry.leaf_index);
        Ok(Ok(Repaired { table: table.rows().name(), key, leaf_index, old, new: Some(new) }))
    }

    async fn value(&mut self, expected: &ExpectedValue<'_>) -> Result<Option<String>, DatabaseError> {
        Ok(match expected {
            ExpectedValue::Text(text) => text.as_deref().map(str::to_owned),
            ExpectedValue::Json(said) => said.as_ref().map(|said| said.text.to_owned()),
            ExpectedValue::Number(number) => number.as_ref().map(ToString::to_string),
            ExpectedValue::Priced | ExpectedValue::Venture(None) => None,
            ExpectedValue::Venture(Some(venture)) => {
                let query = sqlx::query_scalar("select id::text from ledger.known_venture where id = $1::uuid");
                answer(query.bind(venture).fetch_optional(&mut *self.session)).await?
            }
        })
    }

    /// The cost and its rates: those that the row names, if they can be; otherwise those that were in force.
    fn price(
        &self,
        key: &RowKey,
        pricing: &Pricing,
        row: &Row<'_>,
        found: Option<&Values>,
        entry: &EntryRow,
    ) -> Result<[Option<String>; 3], String> {
        let rates = self.rates;
        let (published_ns, committed_at_us) = (entry.server_time_ns, entry.committed_at_us.unwrap_or(0));
        let charge = Charge { rates, published_ns, committed_at_us };
        let named = found.filter(|found| {
            let differences = charge.check(key, pricing, found);
            differences.iter().all(|difference| difference.field == "cost_usd")
        });
        let named = named.and_then(|found| {
            let id = |back: usize| found.get(found.len().checked_sub(back)?)?.parse::<i64>().ok();
            Some([id(2)?, id(1)?])
        });
        let model =
            Table::TokenLedger.rows().columns.iter().zip(&row.values).find(|(column, _)| **column == "model_used");
        let model =
            model.and_then(|(_, value)| if let ExpectedValue::Text(model) = value { model.as_deref() } else { None });
        let tier = || pricing.tier.clone().or_else(|| (self.context.tier_of)(model?));
        let ids = named.or_else(|| charge.rates_of(&tier()?));
        let [input, output] = ids.ok_or("nobody knows the rates that were in force")?;
        let rate = |id: i64| rates.get(id).and_then(|rate| crate::record::decimal::Decimal::parse(&rate.value));
        let (input_rate, output_rate) = rate(input).zip(rate(output)).ok_or("its rates are no numbers")?;
        let cost = pricing.cost(&input_rate, &output_rate);
        Ok([Some(cost.to_string()), Some(input.to_string()), Some(output.to_string())])
    }

    /// Takes away whatever stands in the place of the row, or bears its name.
    async fn delete(
        &mut self,
        table: Table,
        key: &str,
        values: &[Option<String>],
    ) -> Result<Option<String>, DatabaseError> {
        let (id_type, own) = (table.rows().id_type(), table.rows().own_key);
        let named: Vec<String> =
            own.iter().zip(2..).map(|(column, place)| format!("it.\"{column}\"::text = ${place}")).collect();
        let named = if named.is_empty() { "false".to_owned() } else { named.join(" and ") };
        let statement = format!(
            "delete from {} as it where it.id = $1::text::{id_type} or {named} returning to_jsonb(it)::text",
            table.rows().stored_in
        );
        let mut query = sqlx::query_scalar(AssertSqlSafe(statement)).bind(key);
        for (column, value) in table.rows().columns.iter().zip(values) {
            if own.contains(column) {
                query = query.bind(value);
            }
        }
        let rows: Vec<String> = answer(query.fetch_all(&mut *self.session)).await?;
        Ok(if rows.is_empty() { None } else { Some(rows.join(" ")) })
    }

    async fn insert(&mut self, table: Table, key: &str, values: &[Option<String>]) -> Result<String, DatabaseError> {
        let types = sqlx::query_as(
            "select attname::text, format_type(atttypid, null) from pg_attribute where attrelid = to_regclass($1) and attnum > 0",
        );
        let types: Vec<(String, String)> =
            answer(types.bind(table.rows().stored_in).fetch_all(&mut *self.session)).await?;
        let type_of =
            |column: &str| types.iter().find(|(name, _)| name == column).map_or("text", |(_, kind)| kind.as_str());
        let names: Vec<String> = table.rows().columns.iter().map(|column| format!("\"{column}\"")).collect();
        let casts: Vec<String> = table
            .rows()
            .columns
            .iter()
            .zip(2..)
            .map(|(column, place)| format!("${place}::text::{}", type_of(column)))
            .collect();
        let statement = format!(
            "insert into {table} as it (id, {}) overriding system value values ($1::text::{}, {}) returning to_jsonb(it)::text",
            names.join(", "),
            type_of("id"),
            casts.join(", "),
            table = table.rows().stored_in,
        );
        let mut query = sqlx::query_scalar(AssertSqlSafe(statement)).bind(key);
        for value in values {
            query = query.bind(value);
        }
        answer(query.fetch_one(&mut *self.session)).await
    }

    /// Adds up days anew, under the lock on the tree's head: between a usage and its day nobody else can be.
    async fn days(&mut self, days: &[String]) -> Result<Vec<Repaired>, DatabaseError> {
        self.run(BEGIN.to_owned()).await?;
        let head = custody::lock_head(self.session).await.map_err(of_failure)?;
        let guards = self.lower_guards("public.token_ledger").await?;
        let mut repaired = Vec::new();
        for day in days {
            let Some((agent, date)) = day.rsplit_once('/') else { continue };
            repaired.extend(Some(self.day(day, agent, date).await?).filter(Repaired::is_change));
        }
        self.raise_guards(guards).await?;
        let judged = self.judge(&repaired).await?;
        let placed: Vec<&Judged> = judged.iter().collect();
        let outcomes =
            project(self.session, &placed, References::Settled, Ids::MayBeTaken).await.map_err(of_failure)?;
        self.append(head, &placed, &outcomes).await?;
        Ok(repaired)
    }

    async fn day(&mut self, key: &str, agent: &str, date: &str) -> Result<Repaired, DatabaseError> {
        let old = "delete from public.token_ledger as day where agent_name = $1 and date = $2::text::date returning to_jsonb(day)::text";
        let old: Option<String> =
            answer(sqlx::query_scalar(old).bind(agent).bind(date).fetch_optional(&mut *self.session)).await?;
        let removed = if self.shape.retention {
            "select -tokens_input, -tokens_output, -exact_cost, false from ledger.removal
                where table_name = 'token_ledger' and row_key = $1 || '/' || $2"
        } else {
            "select 0::bigint, 0::bigint, 0::numeric, false where false"
        };
        let new = format!(
            "insert into public.token_ledger as day
                (agent_name, date, total_tokens_input, total_tokens_output, exact_cost, total_cost, last_updated, budget_status,
                budget_group)
            select $1, $2::text::date, sum(part.input), sum(part.output), sum(part.cost), round(sum(part.cost), 4),
                coalesce(($3::text::jsonb ->> 'last_updated')::timestamp, current_timestamp at time zone 'UTC'),
                case when $3::text::jsonb ->> 'budget_status' in ('GREEN', 'YELLOW', 'RED', 'EXCEEDED')
                    then $3::text::jsonb ->> 'budget_status' end,
                coalesce($3::text::jsonb ->> 'budget_group', $4)
            from (
                select tokens_input, tokens_output, cost_usd, true from ledger.token_usage
                where agent_name = $1 and date = $2::text::date
                union all
                {removed}
            ) as part (input, output, cost, is_usage)
            having bool_or(part.is_usage)
            returning to_jsonb(day)::text"
        );
        let group = (self.context.group_of)(agent);
        let query = sqlx::query_scalar(AssertSqlSafe(new)).bind(agent).bind(date).bind(&old).bind(group);
        let new: Option<String> = answer(query.fetch_optional(&mut *self.session)).await?;
        Ok(Repaired { table: "token_ledger", key: key.to_owned(), leaf_index: None, old, new })
    }

    /// Lets the guards of one table's rows sleep until the end of the transaction: those that fire on a deletion, and no others.
    async fn lower_guards(&mut self, table: &'static str) -> Result<Vec<Guard>, DatabaseError> {
        let query = "select quote_ident(tgname), tgenabled::text
            from pg_trigger
            where tgrelid = to_regclass($1) and not tgisinternal and tgenabled <> 'D' and (tgtype & 1) = 1 and (tgtype & 8) = 8";
        let rows: Vec<(String, String)> =
            answer(sqlx::query_as(query).bind(table).fetch_all(&mut *self.session)).await?;
        let guards: Vec<Guard> = rows.into_iter().map(|(name, enabled)| Guard { table, name, enabled }).collect();
        for guard in &guards {
            self.run(format!("alter table {table} disable trigger {}", guard.name)).await?;
        }
        Ok(guards)
    }

    async fn raise_guards(&mut self, guards: Vec<Guard>) -> Result<(), DatabaseError> {
        for Guard { table, name, enabled } in guards {
            let how = match enabled.as_str() {
                "A" => "enable always trigger",
                "R" => "enable replica trigger",
                _ => "enable trigger",
            };
            self.run(format!("alter table {table} {how} {name}")).await?;
        }
        Ok(())
    }

    /// The events that say what was made anew, each under an id that nobody has.
    async fn judge(&mut self, repaired: &[Repaired]) -> Result<Vec<Judged>, DatabaseError> {
        let epoch = epochs::of(self.session, &incarnation()).await.map_err(DatabaseError::new)?[0];
        let query = "select coalesce(max(last_sequence), 0), (extract(epoch from clock_timestamp()) * 1000)::bigint from ledger.batch where epoch = $1";
        let (last, mut unix_ms): (i64, i64) =
            answer(sqlx::query_as(query).bind(epoch.number).fetch_one(&mut *self.session)).await?;
        let mut judged = Vec::with_capacity(repaired.len());
        for (row, sequence) in repaired.iter().zip(last + 1..) {
            let taken = "select exists (select from public.audit_events where event_id = $1)";
            while answer(sqlx::query_scalar(taken).bind(event_id(unix_ms)).fetch_one(&mut *self.session)).await? {
                unix_ms += 1;
            }
            let message = row.message(sequence, unix_ms);
            let verdict = self.context.rules.judge(&message);
            judged.push(Judged { message, order: Order::Late, verdict });
            unix_ms += 1;
        }
        Ok(judged)
    }

    async fn append(
        &mut self,
        head: custody::AppendHead,
        rows: &[&Judged],
        outcomes: &[custody::RowOutcome<'_>],
    ) -> Result<(), DatabaseError> {
        if outcomes.iter().any(|outcome| outcome.disposition() != Disposition::Recorded) {
            let says = "the event of a repair was not recorded, so nothing was repaired: try again";
            return Err(DatabaseError::of_the_operator(says.to_owned()));
        }
        let epoch = epochs::of(self.session, &incarnation()).await.map_err(DatabaseError::new)?[0];
        match custody::append(self.session, head, epoch, rows, outcomes, custody::Follows::NewestEpoch)
            .await
            .map_err(of_failure)?
        {
            custody::Appended::Done(_) => {}
            custody::Appended::HeadMoved | custody::Appended::Refused | custody::Appended::Overlaps => {
                unreachable!("under the head's lock nobody opens an epoch, or takes a sequence of it")
            }
        }
        self.run("commit".to_owned()).await
    }

    async fn run(&mut self, statements: String) -> Result<(), DatabaseError> {
        answer(sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *self.session)).await.map(drop)
    }
}

fn of_failure(failure: CommitFailure) -> DatabaseError {
    failure.error
}

fn message(context: &RepairContext<'_>, entry: &EntryRow) -> Option<Message> {
    let epoch = context.epochs.get(&entry.epoch)?;
    Some(Message {
        incarnation: epoch.incarnation.clone(),
        sequence: entry.sequence,
        subject: entry.subject.clone(),
        server_time_ns: entry.server_time_ns,
        headers: Headers::from_stored(entry.headers.clone()),
        payload: entry.payload.clone()?,
    })
}
