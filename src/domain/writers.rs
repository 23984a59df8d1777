//! Who may write which record? Lists of actors, for the lanes whose records the Action Registry does not know.

use super::metric::Kind;
use super::reject::{Reason, Rejection, quote};

/// Each list is exact: what an agent may set, its sub-agents may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// Report the token usage of others.
    pub token_reporters: Vec<String>,
    /// Record council votes.
    pub trails: Vec<String>,
    /// Set daily limits.
    pub daily_limits: Vec<String>,
    /// Set token rates.
    pub token_rates: Vec<String>,
    /// Set revenue, operating cost and capital.
    pub finances: Vec<String>,
}

impl Writers {
    pub(crate) fn admit_to_trails(&self, actor: &str) -> Result<(), Rejection> {
        admit(&self.trails, actor, "record decision trails", "trails.writers")
    }

    pub(crate) fn may_record_trails(&self, actor: &str) -> bool {
        is_listed(&self.trails, actor)
    }

    /// Whether there is any metric that the actor may set.
    pub(crate) fn may_set_metrics(&self, actor: &str) -> bool {
        [&self.daily_limits, &self.token_rates, &self.finances].into_iter().any(|list| is_listed(list, actor))
    }

    pub(crate) fn admit_to_metric(&self, kind: Kind, actor: &str) -> Result<(), Rejection> {
        match kind {
            Kind::DailyLimit => admit(&self.daily_limits, actor, "set daily limits", "metrics.daily_limit_setters"),
            Kind::TokenRate => admit(&self.token_rates, actor, "set token rates", "metrics.token_rate_setters"),
            Kind::VentureRevenue | Kind::OperatingCost | Kind::VentureCapital => {
                admit(&self.finances, actor, "set revenue, cost and capital", "metrics.finance_setters")
            }
        }
    }
}

fn is_listed(list: &[String], actor: &str) -> bool {
    list.iter().any(|name| name == actor)
}

fn admit(list: &[String], actor: &str, may: &str, setting: &str) -> Result<(), Rejection> {
    if is_listed(list, actor) {
        return Ok(());
    }
    let detail = format!("{} may not {may}; {setting} allows {}", quote(actor), list.join(", "));
    Err(Rejection::new(Reason::ActionNotAllowed, &detail))
}
