//! The drawings of *Now*: quarters of an hour as bars, a lane's day as a line, and a budget as a meter. SVG, with a text for those
//! who do not see it.

use crate::query::activity::Quarter;
use crate::query::glance::grouped;
use maud::{Markup, html};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 140.0;
const MINUTES: f64 = 15.0;
/// What was rejected can be seen even where it is one of thousands.
const SEEN_MIN: f64 = 3.0;

/// Bars by outcome, and their sums as text.
pub(crate) fn quarters(quarters: &[Quarter]) -> Markup {
    let sum = |count: fn(&Quarter) -> i64| quarters.iter().map(count).sum::<i64>();
    let (recorded, duplicates, rejected) = (sum(|it| it.recorded), sum(|it| it.duplicates), sum(|it| it.rejected));
    let all = (recorded + duplicates + rejected).max(1);
    let top = quarters.iter().map(|it| it.recorded + it.duplicates + it.rejected).max().unwrap_or(0).max(1);
    let share = |count: i64| format!("{:.1} %", as_float(count) * 100.0 / as_float(all));
    let step = WIDTH / as_float(i64::try_from(quarters.len().max(1)).unwrap_or(1));
    html! {
        svg .chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img"
            aria-label={ "Records per minute over 24 hours, at most " (format!("{:.0}", as_float(top) / MINUTES)) }
        {
            @for (place, quarter) in quarters.iter().enumerate() { (bar(quarter, place, step, top)) }
        }
        p .axis.quiet {
            span { (quarters.first().and_then(|it| it.begins_at.get(11..16)).unwrap_or_default()) " UTC" }
            span { (quarters.get(quarters.len() / 2).and_then(|it| it.begins_at.get(11..16)).unwrap_or_default()) }
            span { "now" }
        }
        p {
            span .tag { "recorded " (share(recorded)) } " "
            span .tag.warn { "duplicate " (share(duplicates)) } " "
            span .tag.bad { "rejected " (share(rejected)) } " "
            span .quiet { (grouped(recorded + duplicates + rejected)) " in 24 hours" }
        }
    }
}

fn bar(quarter: &Quarter, place: usize, step: f64, top: i64) -> Markup {
    let height = |count: i64| as_float(count) * (HEIGHT - 2.0 * SEEN_MIN) / as_float(top);
    let at_least = |count: i64| if count == 0 { 0.0 } else { height(count).max(SEEN_MIN) };
    let (recorded, duplicate) = (height(quarter.recorded), at_least(quarter.duplicates));
    let rejected = at_least(quarter.rejected);
    let x = as_float(i64::try_from(place).unwrap_or(0)) * step;
    let part = |class: &str, from_top: f64, height: f64| {
        html! {
            @if height > 0.0 {
                rect class=(class) x=(rounded(x)) y=(rounded(from_top)) width=(rounded(step * 0.75)) height=(rounded(height)) rx="1" {}
            }
        }
    };
    html! {
        g {
            title {
                (quarter.begins_at.get(11..16).unwrap_or_default()) " UTC: " (grouped(quarter.recorded)) " recorded, "
                (grouped(quarter.duplicates)) " duplicate, " (grouped(quarter.rejected)) " rejected"
            }
            (part("recorded", HEIGHT - recorded, recorded))
            (part("duplicate", HEIGHT - recorded - duplicate, duplicate))
            (part("rejected", HEIGHT - recorded - duplicate - rejected, rejected))
        }
    }
}

/// A lane's last 24 hours.
pub(crate) fn sparkline(hours: &[f64]) -> Markup {
    let top = hours.iter().copied().fold(1.0, f64::max);
    let step = 120.0 / (as_float(i64::try_from(hours.len()).unwrap_or(1)) - 1.0).max(1.0);
    let points = hours.iter().zip(0_i64..).map(|(entries, place)| {
        format!("{},{}", rounded(as_float(place) * step), rounded(18.0 - entries / top * 16.0))
    });
    let total = hours.iter().sum::<f64>();
    html! {
        svg .sparkline viewBox="0 0 120 20" role="img" aria-label={ "about " (format!("{total:.0}")) " in 24 hours" } {
            polyline points=(points.collect::<Vec<_>>().join(" ")) {}
        }
    }
}

/// How much of a limit is used.
pub(crate) fn meter(percent: f64, status: Option<&str>) -> Markup {
    let kind = match status {
        Some("GREEN") => "good",
        Some("YELLOW" | "RED") => "warn",
        Some("EXCEEDED") => "bad",
        _ => "none",
    };
    html! {
        svg .meter viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
            rect .ground width="100" height="4" rx="2" {}
            rect class=(kind) width=(rounded(percent.clamp(0.0, 100.0))) height="4" rx="2" {}
        }
    }
}

fn rounded(number: f64) -> String {
    format!("{number:.1}")
}

#[expect(clippy::cast_precision_loss, reason = "it is drawn")]
fn as_float(count: i64) -> f64 {
    count as f64
}
