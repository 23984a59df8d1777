//! The five formats of a metric's key (LDG-002, table 4).

use crate::record::model_tiers::is_tier;
use crate::record::reject::{Reason, Rejection, quote};

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `daily_limit_{agent_sim_id}`: USD per UTC day.
    DailyLimit,
    /// `venture_revenue_{name}_{YYYY-MM}`: USD, below zero where more was paid back than came in.
    VentureRevenue,
    /// `operating_cost_{YYYY-MM}`: USD.
    OperatingCost,
    /// `token_rate_{model_tier}_{direction}`: USD per 1,000 tokens.
    TokenRate,
    /// `venture_capital_{name}`: USD.
    VentureCapital,
}

/// What the key is about, and the part that says which.
pub(crate) fn parse_key(key: &str) -> Option<(Kind, &str)> {
    let (kind, rest) = [
        ("daily_limit_", Kind::DailyLimit),
        ("venture_revenue_", Kind::VentureRevenue),
        ("operating_cost_", Kind::OperatingCost),
        ("token_rate_", Kind::TokenRate),
        ("venture_capital_", Kind::VentureCapital),
    ]
    .into_iter()
    .find_map(|(prefix, kind)| Some((kind, key.strip_prefix(prefix)?)))?;
    let fits = match kind {
        Kind::DailyLimit => !rest.is_empty(),
        Kind::VentureRevenue => rest.rsplit_once('_').is_some_and(|(name, month)| is_name(name) && is_month(month)),
        Kind::OperatingCost => is_month(rest),
        Kind::TokenRate => rest
            .rsplit_once('_')
            .is_some_and(|(tier, direction)| is_tier(tier) && ["input", "output"].contains(&direction)),
        Kind::VentureCapital => is_name(rest),
    };
    fits.then_some((kind, rest))
}

pub(crate) fn unknown_format(key: &str) -> Rejection {
    Rejection::new(
        Reason::DetailsMismatch,
        &format!(
            "metric_key {} has none of the formats daily_limit_{{agent}}, venture_revenue_{{name}}_{{YYYY-MM}}, \
             operating_cost_{{YYYY-MM}}, token_rate_{{TIER}}_{{input|output}}, venture_capital_{{name}}",
            quote(key)
        ),
    )
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// `YYYY-MM`
fn is_month(text: &str) -> bool {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-').is_some_and(|(year, month)| {
        digits(year, 4) && digits(month, 2) && month.parse().is_ok_and(|month: u8| (1..=12).contains(&month))
    })
}
