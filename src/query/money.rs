//! Money: what each agent spent on its days, the limit in force and who set it, the changes of status, and the calls of a day.

use crate::budget::gate::{self, BudgetAnswer, GateRules};
use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use crate::record::agents::Agents;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{IntoParams, ToSchema};

/// How many days are shown.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct MoneyFilter {
    /// Days up to today, 1 to 90. Without it: 7, or 90 for one agent.
    #[param(schema_with = number_of_days)]
    pub days: Option<u32>,
}

/// Any number that can be read; what is above the most is taken for the most.
fn number_of_days() -> Schema {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX)).build().into()
}

const DAYS_MAX: u32 = 90;
/// Without another number, of all agents.
const DAYS_OF_ALL: u32 = 7;

impl MoneyFilter {
    fn days(&self, default: u32) -> i32 {
        i32::try_from(self.days.unwrap_or(default).clamp(1, DAYS_MAX)).expect("at most 90")
    }
}

/// The spending of all agents.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct Money {
    /// The days, the newest last, `YYYY-MM-DD` in UTC.
    pub dates: Vec<String>,
    /// Those that spent something in these days, or have a limit of their own, in the order of their names.
    pub agents: Vec<AgentMoney>,
    /// The newest changes of status, of any agent.
    pub alerts: Vec<StatusChange>,
}

/// One agent's days against its limit.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct AgentMoney {
    pub agent: String,
    pub limit: Option<DailyLimit>,
    /// Days with spending; the others are left out.
    pub days: Vec<AgentDay>,
}

/// A daily limit.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct DailyLimit {
    /// `daily_limit_` and the agent, or its group.
    pub limit_key: String,
    pub limit_usd: String,
    pub set_by: Option<String>,
    /// ISO 8601 in UTC.
    pub set_at: String,
}

/// What an agent spent on a day.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct AgentDay {
    #[serde(skip)]
    agent: String,
    #[serde(skip)]
    budget_group: Option<String>,
    pub date: String,
    /// Exactly, as decimal text.
    pub spent_usd: String,
    pub tokens_input: i64,
    pub tokens_output: i64,
    /// GREEN, YELLOW, RED or EXCEEDED; null where there was no limit.
    pub status: Option<String>,
}

/// A change of a day's status.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct StatusChange {
    pub agent: String,
    pub date: String,
    pub old_status: String,
    pub new_status: String,
    pub spent_usd: String,
    pub limit_usd: String,
    pub limit_key: String,
    /// ISO 8601 in UTC.
    pub raised_at: String,
}

/// One agent's money.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct AgentHistory {
    pub today: BudgetAnswer,
    /// The days of the window, the newest last, `YYYY-MM-DD` in UTC.
    pub dates: Vec<String>,
    /// Days with spending; the others are left out.
    pub days: Vec<AgentDay>,
    /// The limits of the agent and of its group, the newest first. The first of the agent's own is in force.
    pub limits: Vec<DailyLimit>,
    /// The newest first.
    pub alerts: Vec<StatusChange>,
}

/// Which of a day's calls are shown.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct CallsFilter {
    /// The day in UTC, `YYYY-MM-DD`. Without it: today.
    pub date: Option<String>,
    /// As the answer before gave it.
    pub cursor: Option<String>,
}

/// The calls of a day.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct DayCalls {
    pub date: String,
    /// The newest first.
    pub calls: Vec<Call>,
    /// Where the next older ones are; null: there are none.
    pub cursor: Option<String>,
}

/// One call of a model.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema, sqlx::FromRow)]
pub(crate) struct Call {
    #[serde(skip)]
    id: i64,
    pub usage_id: String,
    pub cost_usd: String,
    /// False: the ledger computed the cost from the rates in force.
    pub cost_given: bool,
    pub tokens_input: i64,
    pub tokens_output: i64,
    pub model_used: Option<String>,
    pub model_tier: Option<String>,
    pub operation_type: Option<String>,
    pub task_id: Option<String>,
    /// As the publisher wrote it.
    pub timestamp: Option<String>,
}

const ALERTS_MAX: i64 = 50;
const LIMITS_MAX: i64 = 50;
const CALLS_MAX: usize = 50;

impl Reader {
    /// What one agent may spend today.
    pub(crate) async fn budget(&self, rules: GateRules<'_>, agent: &str) -> Result<BudgetAnswer, DatabaseError> {
        gate::ask(&self.0, rules, agent).await
    }

    pub(crate) async fn money(&self, agents: &Agents, filter: &MoneyFilter) -> Result<Money, DatabaseError> {
        let days = filter.days(DAYS_OF_ALL);
        self.0
            .run("reading what was spent", async |connection| {
                let dates = dates(connection, days).await?;
                let spent = days_of(connection, None, &dates).await?;
                let alerts = newest_alerts(connection).await?;
                let mut by_agent = by_agent(spent, agents);
                let keys: Vec<String> = by_agent.iter().flat_map(|it| keys(&it.agent, it.group.as_deref())).collect();
                let limits = limits_in_force(connection, &keys).await?;
                let agents = by_agent.drain(..).filter_map(|it| it.with_limit(&limits)).collect();
                Ok(Money { dates, agents, alerts })
            })
            .await
    }

    pub(crate) async fn money_of(
        &self,
        rules: GateRules<'_>,
        agent: &str,
        filter: &MoneyFilter,
    ) -> Result<AgentHistory, DatabaseError> {
        let today = self.budget(rules, agent).await?;
        let days = filter.days(DAYS_MAX);
        let group = rules.agents.group(agent).map(str::to_uppercase);
        self.0
            .run("reading what an agent spent", async |connection| {
                let dates = dates(connection, days).await?;
                let spent = days_of(connection, Some(agent), &dates).await?;
                let limits = limits_of(connection, &keys(agent, group.as_deref())).await?;
                let alerts = alerts_of(connection, agent).await?;
                Ok(AgentHistory { today, dates, days: spent, limits, alerts })
            })
            .await
    }

    pub(crate) async fn calls(&self, agent: &str, filter: &CallsFilter) -> Result<DayCalls, DatabaseError> {
        let before = filter.cursor.as_deref().and_then(|cursor| cursor.parse::<i64>().ok()).unwrap_or(i64::MAX);
        self.0
            .run("reading the calls of a day", async |connection| {
                let date = match filter.date.as_deref().filter(|date| is_date(date)) {
                    Some(date) => date.to_owned(),
                    None => dates(connection, 1).await?.remove(0),
                };
                let mut calls = calls_of(connection, agent, &date, before).await?;
                let more = calls.len() > CALLS_MAX;
                calls.truncate(CALLS_MAX);
                let cursor = calls.last().filter(|_| more).map(|last| last.id.to_string());
                Ok(DayCalls { date, calls, cursor })
            })
            .await
    }
}

/// Anything else would be an error of the database.
fn is_date(text: &str) -> bool {
    text.parse::<jiff::civil::Date>().is_ok_and(|date| date.year() >= 1)
}

/// An agent's own limit goes before its group's.
fn keys(agent: &str, group: Option<&str>) -> Vec<String> {
    [Some(agent), group].into_iter().flatten().map(|name| format!("daily_limit_{name}")).collect()
}

/// An agent and its days, before its limit is known.
struct Spender {
    agent: String,
    group: Option<String>,
    days: Vec<AgentDay>,
}

impl Spender {
    /// `None`: there is nothing to say of it.
    fn with_limit(self, limits: &[DailyLimit]) -> Option<AgentMoney> {
        let keys = keys(&self.agent, self.group.as_deref());
        let limit = keys.iter().find_map(|key| limits.iter().find(|limit| limit.limit_key == *key)).cloned();
        let is_own = limit.as_ref().is_some_and(|limit| limit.limit_key == keys[0]);
        (is_own || !self.days.is_empty()).then_some(AgentMoney { agent: self.agent, limit, days: self.days })
    }
}

/// All who are registered, and all who spent something.
fn by_agent(days: Vec<AgentDay>, agents: &Agents) -> Vec<Spender> {
    let mut spenders: std::collections::BTreeMap<String, Spender> = std::collections::BTreeMap::new();
    let new = |agent: &str| Spender {
        agent: agent.to_owned(),
        group: agents.group(agent).map(str::to_uppercase),
        days: Vec::new(),
    };
    for agent in agents.writing() {
        spenders.insert(agent.to_owned(), new(agent));
    }
    for day in days {
        let spender = spenders.entry(day.agent.clone()).or_insert_with(|| new(&day.agent));
        // The newest day comes last, and says what the agent is booked under now.
        spender.group = day.budget_group.clone().or(spender.group.take());
        spender.days.push(day);
    }
    spenders.into_values().collect()
}

async fn dates(connection: &mut PgConnection, days: i32) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select ((clock_timestamp() at time zone 'UTC')::date - ago)::text
        from generate_series($1 - 1, 0, -1) as ago
        order by ago desc",
    )
    .bind(days)
    .fetch_all(connection)
    .await
}

/// The days of one agent, or of all, each found by its date. A publisher whose clock is ahead has days to come; they are left out.
async fn days_of(
    connection: &mut PgConnection,
    agent: Option<&str>,
    dates: &[String],
) -> Result<Vec<AgentDay>, sqlx::Error> {
    let whose = if agent.is_some() { "agent_name = $2 and" } else { "$2::text is null and" };
    let query = format!(
        "select agent_name as agent, budget_group, wanted.date::text as date, trim_scale(exact_cost)::text as spent_usd,
            total_tokens_input as tokens_input, total_tokens_output as tokens_output, budget_status as status
        from unnest($1::text[]::date[]) as wanted (date)
        cross join lateral (
            select * from public.token_ledger as its where {whose} its.date = wanted.date offset 0
        ) as day
        order by wanted.date, agent_name"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(dates).bind(agent).fetch_all(connection).await
}

/// The newest of each key.
async fn limits_in_force(connection: &mut PgConnection, keys: &[String]) -> Result<Vec<DailyLimit>, sqlx::Error> {
    sqlx::query_as(
        "select metric_key as limit_key, trim_scale(metric_value)::text as limit_usd, set_by,
            to_char(created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as set_at
        from (select distinct key from unnest($1::text[]) as key) as wanted
        cross join lateral (
            select *
            from public.economic_metrics as metric
            where metric_key = wanted.key
            order by ledger.metric_moment(metric) desc, id desc
            limit 1
        ) as newest",
    )
    .bind(keys)
    .fetch_all(connection)
    .await
}

/// All of these keys, the newest first; those of the first key before the others.
async fn limits_of(connection: &mut PgConnection, keys: &[String]) -> Result<Vec<DailyLimit>, sqlx::Error> {
    sqlx::query_as(
        "select metric_key as limit_key, trim_scale(metric_value)::text as limit_usd, set_by,
            to_char(created_at, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as set_at
        from public.economic_metrics as metric
        where metric_key = any($1)
        order by array_position($1, metric_key), ledger.metric_moment(metric) desc, id desc
        limit $2",
    )
    .bind(keys)
    .bind(LIMITS_MAX)
    .fetch_all(connection)
    .await
}

const ALERT_COLUMNS: &str = "agent_name as agent, date::text as date, old_status, new_status,
    trim_scale(spent_usd)::text as spent_usd, trim_scale(limit_usd)::text as limit_usd, limit_key,
    to_char(raised_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as raised_at";

async fn newest_alerts(connection: &mut PgConnection) -> Result<Vec<StatusChange>, sqlx::Error> {
    let query = format!("select {ALERT_COLUMNS} from ledger.budget_alert order by id desc limit $1");
    sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(ALERTS_MAX).fetch_all(connection).await
}

async fn alerts_of(connection: &mut PgConnection, agent: &str) -> Result<Vec<StatusChange>, sqlx::Error> {
    let query = format!(
        "select {ALERT_COLUMNS} from ledger.budget_alert
        where agent_name = $1
        order by ledger.budget_alert.date desc, id desc
        limit $2"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(agent).bind(ALERTS_MAX).fetch_all(connection).await
}

async fn calls_of(
    connection: &mut PgConnection,
    agent: &str,
    date: &str,
    before: i64,
) -> Result<Vec<Call>, sqlx::Error> {
    sqlx::query_as(
        "select id, usage_id, trim_scale(cost_usd)::text as cost_usd, cost_given, tokens_input, tokens_output, model_used,
            model_tier, operation_type, task_id, timestamp_text as timestamp
        from ledger.token_usage
        where agent_name = $1 and date = $2::text::date and id < $3
        order by id desc
        limit $4",
    )
    .bind(agent)
    .bind(date)
    .bind(before)
    .bind(i64::try_from(CALLS_MAX + 1).expect("small"))
    .fetch_all(connection)
    .await
}
