//! The spend gate: what an agent has spent today and may still spend, for those who ask before they call a model.
//!
//! It is decided from committed rows at the moment of the question, and nothing is kept in memory: so the answer is exact
//! after each commit, and every instance gives the same. The day is that of the database's clock, in UTC.

use crate::budget::status::Budget;
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use crate::record::agents::Agents;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// What an agent may spend today.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema, schemars::JsonSchema)]
pub struct BudgetAnswer {
    pub agent: String,
    pub status: BudgetStatus,
    /// What was spent today, exactly, as decimal text; by all who share the limit, where it is shared.
    pub spent_usd: Option<String>,
    /// The limit in force. Null: there is none.
    pub limit_usd: Option<String>,
    /// What is left of the limit; below zero where it is exceeded.
    pub remaining_usd: Option<String>,
    /// The metric that sets the limit: `daily_limit_` and the agent, or its group.
    pub limit_key: Option<String>,
    /// The day in UTC, `YYYY-MM-DD`.
    pub date: Option<String>,
    /// The moment of the answer, by the database's clock.
    pub as_of: Option<String>,
    /// Why there is no more to say, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How a day stands against its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BudgetStatus {
    Green,
    Yellow,
    Red,
    Exceeded,
    /// Neither the agent nor its group has a limit.
    NoLimit,
    /// Nobody of this name is registered.
    UnknownAgent,
    /// The database did not answer in time.
    Unavailable,
}

impl BudgetStatus {
    /// As records and answers write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Green => "GREEN",
            Self::Yellow => "YELLOW",
            Self::Red => "RED",
            Self::Exceeded => "EXCEEDED",
            Self::NoLimit => "NO_LIMIT",
            Self::UnknownAgent => "UNKNOWN_AGENT",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    fn parse(name: &str) -> Self {
        match name {
            "GREEN" => Self::Green,
            "YELLOW" => Self::Yellow,
            "RED" => Self::Red,
            "EXCEEDED" => Self::Exceeded,
            _ => Self::NoLimit,
        }
    }
}

impl BudgetAnswer {
    fn without_numbers(agent: &str, status: BudgetStatus, detail: String) -> Self {
        Self {
            agent: agent.to_owned(),
            status,
            spent_usd: None,
            limit_usd: None,
            remaining_usd: None,
            limit_key: None,
            date: None,
            as_of: None,
            detail: Some(detail),
        }
    }

    /// The database did not answer.
    pub fn unavailable(agent: &str, why: &str) -> Self {
        Self::without_numbers(agent, BudgetStatus::Unavailable, format!("the ledger cannot be asked: {why}"))
    }

    fn unknown(agent: &str) -> Self {
        let detail = "no agent of this name is registered: agent_schema.yaml and registry.extra_actors have the names";
        Self::without_numbers(agent, BudgetStatus::UnknownAgent, detail.to_owned())
    }
}

/// Who asks, and by which rules it is answered.
#[derive(Clone, Copy, Debug)]
pub struct GateRules<'a> {
    pub agents: &'a Agents,
    pub budget: &'a Budget,
}

#[derive(sqlx::FromRow)]
struct Today {
    date: String,
    as_of: String,
    status: String,
    spent_usd: String,
    limit_usd: Option<String>,
    remaining_usd: Option<String>,
    limit_key: Option<String>,
}

/// Answers for one agent, from what is committed now.
pub async fn ask(connections: &Connections, rules: GateRules<'_>, agent: &str) -> Result<BudgetAnswer, DatabaseError> {
    ask_at(connections, rules, agent, None).await
}

/// The same for the day of another moment, ISO 8601.
pub async fn ask_at(
    connections: &Connections,
    rules: GateRules<'_>,
    agent: &str,
    moment: Option<&str>,
) -> Result<BudgetAnswer, DatabaseError> {
    if !rules.agents.is_registered(agent) {
        return Ok(BudgetAnswer::unknown(agent));
    }
    let group = rules.agents.group(agent).map(str::to_uppercase);
    let today = connections
        .run("asking for a budget", async |connection| {
            today(connection, rules.budget, agent, group.as_deref(), moment).await
        })
        .await?;
    let Today { date, as_of, status, spent_usd, limit_usd, remaining_usd, limit_key } = today;
    Ok(BudgetAnswer {
        agent: agent.to_owned(),
        status: BudgetStatus::parse(&status),
        spent_usd: Some(spent_usd),
        limit_usd,
        remaining_usd,
        limit_key,
        date: Some(date),
        as_of: Some(as_of),
        detail: None,
    })
}

/// The same rules as in [`crate::budget::days`], which writes `budget_status`: an agent's own limit goes before its group's, and who
/// has one of its own does not use up the others'. An agent's group is the one that its day was booked under.
async fn today(
    connection: &mut PgConnection,
    budget: &Budget,
    agent: &str,
    group: Option<&str>,
    at: Option<&str>,
) -> Result<Today, sqlx::Error> {
    sqlx::query_as(
        "with
        asked as materialized (
            select moment, (moment at time zone 'UTC')::date as date
            from coalesce($7::text::timestamptz, clock_timestamp()) as moment
        ),
        own as materialized (
            select asked.date, asked.moment, coalesce(day.exact_cost, 0) as spent_usd,
                case when day.agent_name is null then $2 else day.budget_group end as budget_group
            from asked
            left join public.token_ledger as day on (day.agent_name, day.date) = ($1, asked.date)
        ),
        limit_in_force as materialized (
            select metric_key, metric_value as limit_usd, metric_key = 'daily_limit_' || $1 as is_own
            from own
            join public.economic_metrics as metric on metric_key in ('daily_limit_' || $1, 'daily_limit_' || own.budget_group)
            order by is_own desc, ledger.metric_moment(metric) desc, metric.id desc
            limit 1
        ),
        -- Counted only where the limit is shared.
        pool as (
            select sum(member.exact_cost) as spent_usd
            from own
            join limit_in_force on not is_own and own.budget_group = any($3)
            join public.token_ledger as member on (member.date, member.budget_group) = (own.date, own.budget_group)
            where not exists (
                select from public.economic_metrics where metric_key = 'daily_limit_' || member.agent_name
            )
        ),
        standing as (
            select own.date, own.moment, limit_usd, metric_key, coalesce(pool.spent_usd, own.spent_usd) as spent_usd
            from own
            cross join pool
            left join limit_in_force on true
        )
        select date::text as date, to_char(moment at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as as_of,
            case
                when limit_usd is null then 'NO_LIMIT'
                when spent_usd * 100 > limit_usd * $6 then 'EXCEEDED'
                when limit_usd > 0 and spent_usd * 100 >= limit_usd * $5 then 'RED'
                when limit_usd > 0 and spent_usd * 100 >= limit_usd * $4 then 'YELLOW'
                else 'GREEN'
            end as status,
            trim_scale(spent_usd)::text as spent_usd, trim_scale(limit_usd)::text as limit_usd,
            trim_scale(limit_usd - spent_usd)::text as remaining_usd, metric_key as limit_key
        from standing",
    )
    .bind(agent)
    .bind(group)
    .bind(&budget.shared_groups)
    .bind(budget.yellow_percent)
    .bind(budget.red_percent)
    .bind(budget.exceeded_percent)
    .bind(at)
    .fetch_one(connection)
    .await
}
