//! `ledgerd spend`: shows what each agent spent on each day, and its limit; or one agent's days, limits and changes of status.

use crate::budget::gate::{BudgetStatus, GateRules};
use crate::command::{Exit, Failure, connect, output, rules};
use crate::config::Config;
use crate::query::Reader;
use crate::query::money::{AgentDay, AgentHistory, AgentMoney, Money, MoneyFilter};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(crate) struct SpendArguments {
    /// One agent, with its days, its limits and its changes of status
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// How many days, up to today in UTC [default: 7, or 90 for one agent]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=90))]
    days: Option<u32>,
}

pub(crate) async fn run(config: &Config, arguments: &SpendArguments, as_json: bool) -> Result<(), Failure> {
    let agents = rules::load(config).map_err(|why| Failure::new(Exit::Configuration, why))?.agents;
    let reader = Reader(connect::database(config, 1)?);
    let filter = MoneyFilter { days: arguments.days };
    match &arguments.agent {
        None => {
            let money = reader.money(&agents, &filter).await?;
            if as_json {
                output::json(&json!(money));
            } else {
                table(&money).iter().for_each(output::line);
            }
        }
        Some(agent) => {
            let gate = GateRules { agents: &agents, budget: &config.budget };
            let history = reader.money_of(gate, agent, &filter).await?;
            if history.today.status == BudgetStatus::UnknownAgent && history.days.is_empty() {
                let why = history.today.detail.unwrap_or_default();
                return Err(Failure::new(Exit::Usage, format!("--agent {agent}: {why}")));
            }
            if as_json {
                output::json(&json!(history));
            } else {
                of_agent(&history).iter().for_each(output::line);
            }
        }
    }
    Ok(())
}

/// Days without spending.
const NOTHING: &str = "-";

/// A table of agents and days. More days than a terminal has room for are a sum.
fn table(money: &Money) -> Vec<String> {
    const COLUMNS_MAX: usize = 7;
    if money.agents.is_empty() {
        return vec!["nobody has spent anything in these days, and no agent has a limit of its own".to_owned()];
    }
    let shown = &money.dates[money.dates.len().saturating_sub(COLUMNS_MAX)..];
    let days: String = shown.iter().map(|date| format!("{:>11}", date.get(5..).unwrap_or(date))).collect();
    let mut lines = vec![format!("{:<16}{days}{:>11}  today", "agent", "limit")];
    lines.extend(money.agents.iter().map(|agent| row(agent, shown)));
    if shown.len() < money.dates.len() {
        lines.push(format!("the last {} of {} days; --json has all", shown.len(), money.dates.len()));
    }
    lines
}

fn row(AgentMoney { agent, limit, days }: &AgentMoney, dates: &[String]) -> String {
    let on = |date: &String| days.iter().find(|day| day.date == *date);
    let spent: String =
        dates.iter().map(|date| format!("{:>11}", on(date).map_or(NOTHING, |day| day.spent_usd.as_str()))).collect();
    let limit = limit.as_ref().map_or("none", |limit| limit.limit_usd.as_str());
    let status = dates.last().and_then(on).and_then(|day| day.status.as_deref()).unwrap_or(NOTHING);
    format!("{:<16}{spent}{limit:>11}  {status}", output::safe(agent))
}

fn of_agent(history: &AgentHistory) -> Vec<String> {
    let today = &history.today;
    let amount = |amount: &Option<String>| amount.clone().unwrap_or_else(|| "none".to_owned());
    let mut lines = vec![format!(
        "{}: {}, {} USD spent today, limit {}, left {}",
        output::safe(&today.agent),
        today.status.name(),
        amount(&today.spent_usd),
        amount(&today.limit_usd),
        amount(&today.remaining_usd)
    )];
    lines.push(format!("\n{:<12}{:>14}{:>14}{:>14}  status", "date", "USD", "tokens in", "tokens out"));
    lines.extend(history.days.iter().map(|day| {
        let AgentDay { date, spent_usd, tokens_input, tokens_output, status, .. } = day;
        let status = status.as_deref().unwrap_or(NOTHING);
        format!("{date:<12}{spent_usd:>14}{tokens_input:>14}{tokens_output:>14}  {status}")
    }));
    if !history.limits.is_empty() {
        lines.push(format!("\n{:<22}{:>14}  {:<28}by", "limit set", "USD", "key"));
        lines.extend(history.limits.iter().map(|limit| {
            let by = output::safe(limit.set_by.as_deref().unwrap_or(NOTHING));
            format!("{:<22}{:>14}  {:<28}{by}", limit.set_at, limit.limit_usd, output::safe(&limit.limit_key))
        }));
    }
    if !history.alerts.is_empty() {
        lines.push(format!("\n{:<22}{:<12}{:<20}spent of the limit", "status changed", "day", "change"));
        lines.extend(history.alerts.iter().map(|it| {
            let change = format!("{} to {}", it.old_status, it.new_status);
            format!("{:<22}{:<12}{change:<20}{} of {}", it.raised_at, it.date, it.spent_usd, it.limit_usd)
        }));
    }
    lines
}
