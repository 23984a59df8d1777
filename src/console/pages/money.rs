//! The screen *Money*: agents and their days by status, and one agent's days, limits and calls.

mod chart;

use crate::budget::gate::{BudgetAnswer, BudgetStatus};
use crate::console::elements::{address, empty, outcome, task, time};
use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use crate::console::site::Shared;
use crate::query::glance::grouped;
use crate::query::money::{
    AgentHistory, AgentMoney, CallsFilter, DailyLimit, DayCalls, Money, MoneyFilter, StatusChange,
};
use axum::extract::{Path, Query, State};
use maud::{Markup, html};

pub(crate) async fn all(State(site): State<Shared>, Query(filter): Query<MoneyFilter>) -> Result<Markup, Fault> {
    let money = site.reader.money(&site.agents, &filter).await?;
    let content = html! {
        h1 { "Money" }
        section .card {
            h2 { "What each agent spent, USD per day" }
            @if money.agents.is_empty() {
                (empty(&html! {
                    "Nobody has spent anything in these days, and no agent has a limit. "
                    code { "ledgerd setup --defaults" } " publishes the reference limits and rates."
                }))
            } @else {
                (days(&money))
            }
        }
        section .card { h2 { "Changes of status" } (changes(&money.alerts)) }
    };
    Ok(page("Money", Screen::Money, &content))
}

pub(crate) async fn of_agent(
    State(site): State<Shared>,
    Path(agent): Path<String>,
    Query(filter): Query<MoneyFilter>,
    Query(which): Query<CallsFilter>,
) -> Result<Markup, Fault> {
    let history = site.reader.money_of(site.gate_rules(), &agent, &filter).await?;
    if history.today.status == BudgetStatus::UnknownAgent && history.days.is_empty() {
        return Err(Fault::NotFound(format!("{agent}: {}", history.today.detail.unwrap_or_default())));
    }
    let calls = site.reader.calls(&agent, &which).await?;
    let content = html! {
        p .quiet { a href="/money" { "Money" } " ›" }
        h1 { (agent) }
        p { (standing(&history.today)) }
        section .card {
            h2 { "USD per day against the limit" }
            (chart::days(&history))
        }
        section .card { h2 { "Calls of " (calls.date) } (calls_of(&agent, &calls)) }
        div .cards {
            section .card { h2 { "Limits" } (limits(&history)) }
            section .card { h2 { "Changes of status" } (changes(&history.alerts)) }
        }
    };
    Ok(page(&agent, Screen::Money, &content))
}

fn standing(today: &BudgetAnswer) -> Markup {
    let spent = today.spent_usd.as_deref().unwrap_or("0");
    html! {
        (outcome(today.status.name())) " "
        @match (&today.limit_usd, &today.remaining_usd) {
            (Some(limit), Some(remaining)) => {
                (usd(spent)) " of " (usd(limit)) " USD spent today; " (usd(remaining)) " USD are left. The limit is " code { (today.limit_key.as_deref().unwrap_or_default()) } "."
            }
            _ => { (usd(spent)) " USD spent today, without a limit." }
        }
    }
}

fn days(money: &Money) -> Markup {
    html! {
        div .scroll {
            table .days {
                thead {
                    tr {
                        th scope="col" { "Agent" }
                        @for date in &money.dates { th scope="col" .number { (date.get(5..).unwrap_or(date)) } }
                        th scope="col" .number { "Limit" }
                        th scope="col" { "Set by" }
                    }
                }
                tbody { @for agent in &money.agents { (agent_row(agent, &money.dates)) } }
            }
        }
    }
}

fn agent_row(agent: &AgentMoney, dates: &[String]) -> Markup {
    html! {
        tr {
            th scope="row" { a href=(address("/money", &agent.agent)) { (agent.agent) } }
            @for date in dates {
                @match agent.days.iter().find(|day| day.date == *date) {
                    None => td .number.quiet { "–" },
                    Some(day) => td class={ "number status " (status_class(day.status.as_deref())) } {
                        a href={ (address("/money", &agent.agent)) "?date=" (date) } title=(day.status.as_deref().unwrap_or("no limit")) {
                            (usd(&day.spent_usd))
                        }
                    },
                }
            }
            @match &agent.limit {
                None => { td .number.quiet { "none" } td {} }
                Some(limit) => {
                    td .number title=(limit.limit_key) { (usd(&limit.limit_usd)) @if is_of_group(agent, limit) { span .quiet { " group" } } }
                    td .quiet { (limit.set_by.as_deref().unwrap_or("–")) ", " (limit.set_at.get(..10).unwrap_or_default()) }
                }
            }
        }
    }
}

fn is_of_group(agent: &AgentMoney, limit: &DailyLimit) -> bool {
    limit.limit_key.strip_prefix("daily_limit_") != Some(agent.agent.as_str())
}

fn status_class(status: Option<&str>) -> &'static str {
    match status {
        Some("GREEN") => "good",
        Some("YELLOW" | "RED") => "warn",
        Some("EXCEEDED") => "bad",
        _ => "",
    }
}

fn changes(changes: &[StatusChange]) -> Markup {
    if changes.is_empty() {
        return empty(&html! { "No day has changed its status." });
    }
    html! {
        div .scroll {
            table {
                thead {
                    tr {
                        th scope="col" { "Time" }
                        th scope="col" { "Agent" }
                        th scope="col" { "Change" }
                        th scope="col" .number { "Spent of its limit" }
                    }
                }
                tbody {
                    @for change in changes {
                        tr {
                            td { (time(&change.raised_at)) }
                            td { a href={ (address("/money", &change.agent)) "?date=" (change.date) } { (change.agent) } }
                            td { (outcome(&change.old_status)) " → " (outcome(&change.new_status)) }
                            td .number { (usd(&change.spent_usd)) " / " (usd(&change.limit_usd)) }
                        }
                    }
                }
            }
        }
    }
}

fn limits(history: &AgentHistory) -> Markup {
    if history.limits.is_empty() {
        return empty(&html! { "Neither the agent nor its group has a limit." });
    }
    html! {
        table {
            thead { tr { th scope="col" { "Set" } th scope="col" { "Limit" } th scope="col" .number { "USD" } th scope="col" { "By" } } }
            tbody {
                @for limit in &history.limits {
                    tr {
                        td { (time(&limit.set_at)) }
                        td { code { (limit.limit_key) } }
                        td .number { (usd(&limit.limit_usd)) }
                        td { (limit.set_by.as_deref().unwrap_or("–")) }
                    }
                }
            }
        }
    }
}

fn calls_of(agent: &str, DayCalls { date, calls, cursor }: &DayCalls) -> Markup {
    if calls.is_empty() {
        return empty(&html! { "No call of this day is on record. Choose a day in the chart." });
    }
    html! {
        div .scroll {
            table {
                thead {
                    tr {
                        th scope="col" { "Time" }
                        th scope="col" { "Call" }
                        th scope="col" { "Model" }
                        th scope="col" { "Task" }
                        th scope="col" .number { "Tokens in / out" }
                        th scope="col" .number { "USD" }
                    }
                }
                tbody {
                    @for call in calls {
                        tr {
                            td { @if let Some(timestamp) = &call.timestamp { (time(timestamp)) } }
                            td { a .mono href={ "/search?q=" (percent_encoding::utf8_percent_encode(&call.usage_id, percent_encoding::NON_ALPHANUMERIC)) } { (call.usage_id) } }
                            td { (call.model_used.as_deref().or(call.model_tier.as_deref()).unwrap_or("–")) }
                            td { @if let Some(id) = &call.task_id { (task(id)) } }
                            td .number { (grouped(call.tokens_input)) " / " (grouped(call.tokens_output)) }
                            td .number title=(if call.cost_given { "as the publisher said" } else { "from the rates in force" }) {
                                (call.cost_usd)
                            }
                        }
                    }
                }
            }
        }
        @if let Some(cursor) = cursor {
            p { a .button href={ (address("/money", agent)) "?date=" (date) "&cursor=" (cursor) } { "Older calls" } }
        }
    }
}

/// An exact amount to two places, or to four where it is below a dollar.
pub(crate) fn usd(exact: &str) -> String {
    let (whole, fraction) = exact.split_once('.').unwrap_or((exact, ""));
    let places = if whole.trim_start_matches('-') == "0" && fraction.len() > 2 { 4 } else { 2 };
    let mut fraction: String = fraction.chars().take(places).collect();
    while fraction.len() < 2 {
        fraction.push('0');
    }
    format!("{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use super::usd;

    #[test]
    fn amounts_are_short_and_never_rounded_up() {
        let amounts = ["1", "1.05", "0.00003", "0.0699999", "12.999", "-0.5"].map(usd);
        assert_eq!(amounts, ["1.00", "1.05", "0.0000", "0.0699", "12.99", "-0.50"]);
    }
}
