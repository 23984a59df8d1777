//! An agent's days as bars, with its own limit in force as a line.

use crate::console::elements::address;
use crate::console::pages::money::{status_class, usd};
use crate::query::money::AgentHistory;
use maud::{Markup, html};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 160.0;

pub(crate) fn days(history: &AgentHistory) -> Markup {
    let AgentHistory { today, dates, days, .. } = history;
    let amount = |text: &str| text.parse::<f64>().unwrap_or(0.0);
    let limit = today.limit_usd.as_deref().map(amount).filter(|limit| *limit > 0.0);
    let top = days.iter().map(|day| amount(&day.spent_usd)).fold(limit.unwrap_or(0.0), f64::max).max(f64::MIN_POSITIVE);
    let step = WIDTH / f64::from(u32::try_from(dates.len().max(1)).unwrap_or(1));
    let height = |value: f64| (value / top * (HEIGHT - 4.0)).max(0.0);
    html! {
        svg .chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="group" aria-label="Spending per day" {
            @for (date, place) in dates.iter().zip(0_u32..) {
                @if let Some(day) = days.iter().find(|day| day.date == *date) {
                    @let tall = height(amount(&day.spent_usd)).max(2.0);
                    a href={ (address("/money", &today.agent)) "?date=" (date) } {
                        title { (date) ": " (usd(&day.spent_usd)) " USD" @if let Some(status) = &day.status { ", " (status) } }
                        rect class={ "day " (status_class(day.status.as_deref())) } x=(format!("{:.1}", f64::from(place) * step))
                            y=(format!("{:.1}", HEIGHT - tall)) width=(format!("{:.1}", step * 0.75)) height=(format!("{tall:.1}")) rx="1" {}
                    }
                }
            }
            @if let Some(limit) = limit {
                @let y = format!("{:.1}", HEIGHT - height(limit));
                line .limit x1="0" x2=(WIDTH) y1=(y) y2=(y) {}
            }
        }
        p .axis.quiet {
            span { (dates.first().map_or("", String::as_str)) }
            @if let Some(limit) = &today.limit_usd { span { "line: the limit in force, " (usd(limit)) " USD" } }
            span { "today" }
        }
    }
}
