//! The API's answers about money. `/budgets/{agent}` is the spend gate over HTTP: it is asked before a model call.

use crate::budget::gate::{BudgetAnswer, BudgetStatus};
use crate::console::fault::{Fault, Problem, ProblemDetails};
use crate::console::site::Shared;
use crate::query::money::{AgentHistory, CallsFilter, DayCalls, Money, MoneyFilter};
use axum::Json;
use axum::extract::{Path, Query, State};

/// What each agent spent, and its limit.
#[utoipa::path(
    get, path = "/budgets", params(MoneyFilter),
    responses((status = 200, body = Money), (status = 503, body = ProblemDetails))
)]
pub(crate) async fn budgets(
    State(site): State<Shared>,
    Query(filter): Query<MoneyFilter>,
) -> Result<Json<Money>, Problem> {
    Ok(Json(site.reader.money(&site.agents, &filter).await?))
}

/// What an agent may spend today: exact after each commit.
#[utoipa::path(
    get, path = "/budgets/{agent}", params(("agent" = String, Path, description = "The agent's name")),
    responses(
        (status = 200, body = BudgetAnswer),
        (status = 404, description = "No agent of this name is registered", body = ProblemDetails),
        (status = 503, body = ProblemDetails)
    )
)]
pub(crate) async fn budget(
    State(site): State<Shared>,
    Path(agent): Path<String>,
) -> Result<Json<BudgetAnswer>, Problem> {
    Ok(Json(known(site.reader.budget(site.gate_rules(), &agent).await?)?))
}

/// An agent's days, limits and changes of status.
#[utoipa::path(
    get, path = "/budgets/{agent}/history",
    params(("agent" = String, Path, description = "The agent's name"), MoneyFilter),
    responses(
        (status = 200, body = AgentHistory),
        (status = 404, description = "No agent of this name is registered", body = ProblemDetails),
        (status = 503, body = ProblemDetails)
    )
)]
pub(crate) async fn history(
    State(site): State<Shared>,
    Path(agent): Path<String>,
    Query(filter): Query<MoneyFilter>,
) -> Result<Json<AgentHistory>, Problem> {
    let mut history = site.reader.money_of(site.gate_rules(), &agent, &filter).await?;
    history.today = known(history.today)?;
    Ok(Json(history))
}

/// The calls of an agent's day, the newest first.
#[utoipa::path(
    get, path = "/budgets/{agent}/calls",
    params(("agent" = String, Path, description = "The agent's name"), CallsFilter),
    responses((status = 200, body = DayCalls), (status = 503, body = ProblemDetails))
)]
pub(crate) async fn calls(
    State(site): State<Shared>,
    Path(agent): Path<String>,
    Query(filter): Query<CallsFilter>,
) -> Result<Json<DayCalls>, Problem> {
    Ok(Json(site.reader.calls(&agent, &filter).await?))
}

fn known(answer: BudgetAnswer) -> Result<BudgetAnswer, Fault> {
    match answer.status {
        BudgetStatus::UnknownAgent => {
            Err(Fault::NotFound(format!("{}: {}", answer.agent, answer.detail.unwrap_or_default())))
        }
        _ => Ok(answer),
    }
}
