//! What somebody must do: one card for each cause, with its cure. Without a cause there is no card.

use crate::config::Config;
use crate::query::facts::Facts;
use crate::query::glance::{grouped, short_duration};
use crate::query::lanes::LaneState;
use crate::query::spending::Spending;
use crate::query::stream::StreamAnswer;
use crate::query::troubles::{LETTERS_MAX, OpenLetters};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;
use utoipa::ToSchema;

/// One thing that somebody must do.
#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct Card {
    /// What it is about, for programs: `open_dead_letters`, `budget_exceeded`, …
    pub kind: &'static str,
    /// Whether something is broken or lost, and not a warning.
    pub is_urgent: bool,
    pub title: String,
    pub says: String,
    /// What to do.
    pub cure: String,
    /// The entry of the documents: a file below `docs/`, and its heading.
    pub document: &'static str,
    /// Where the console shows more of it.
    pub link: Option<CardLink>,
}

#[derive(Clone, Debug, Serialize, ToSchema, schemars::JsonSchema)]
pub(crate) struct CardLink {
    pub text: &'static str,
    pub address: String,
}

const DAY_SECONDS: f64 = 86_400.0;
/// The timers run weekly and daily; a day more is allowed for both.
const VERIFY_AGE_MAX: f64 = 8.0 * DAY_SECONDS;
const RECONCILE_AGE_MAX: f64 = 2.0 * DAY_SECONDS;
/// A signer that is only busy signs within this time.
const UNSIGNED_MIN: Duration = Duration::from_mins(1);
/// Names that a sentence lists.
const NAMES_MAX: usize = 5;

/// All of them, the urgent ones first.
pub(crate) fn of(config: &Config, facts: &Facts) -> Vec<Card> {
    let mut cards = Vec::new();
    cards.extend(unread_lanes(&facts.lanes));
    cards.extend(facts.lanes.iter().filter(|lane| lane.stands_still(config.stall_tell_after)).map(standing));
    cards.extend(silent_stream(&facts.stream));
    cards.extend(facts.spending.iter().filter_map(budget));
    cards.extend(dead_letters(&facts.troubles.open_letters));
    cards.extend(signature(config, facts));
    cards.extend(verification(facts));
    cards.extend(reconciliation(facts));
    cards.extend(gaps(facts));
    cards.extend(refused(facts));
    cards.sort_by_key(|card| !card.is_urgent);
    cards
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.len().checked_sub(NAMES_MAX) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..NAMES_MAX].join(", ")),
    }
}

fn unread_lanes(lanes: &[LaneState]) -> Option<Card> {
    let unread: Vec<&LaneState> = lanes.iter().filter(|lane| !lane.is_owned()).collect();
    if unread.is_empty() {
        return None;
    }
    let nobody = unread.len() == lanes.len();
    Some(Card {
        kind: "lanes_without_owner",
        is_urgent: true,
        title: if nobody {
            "No daemon reads the stream".to_owned()
        } else {
            format!("{} lanes are not read", unread.len())
        },
        says: format!(
            "Nobody reads {}. Nothing is lost: what is published waits in the stream.",
            if nobody { "any lane".to_owned() } else { listed(unread.iter().map(|lane| lane.lane.as_str())) }
        ),
        cure: "Start the daemon (systemctl start ledgerd), or read why it waits (systemctl status ledgerd).".to_owned(),
        document: "runbook.md#ledgerddown",
        link: None,
    })
}

fn standing(lane: &LaneState) -> Card {
    let waits = lane.stream.as_ref().and_then(|stream| stream.oldest_waits_seconds).unwrap_or(0.0);
    Card {
        kind: "lane_stands_still",
        is_urgent: true,
        title: format!("Lane {} stands still", lane.lane),
        says: format!("Its oldest message has waited for {}, and none was stored since.", short_duration(waits)),
        cure: "Release its consumer where somebody paused it; else look at the daemon's log.".to_owned(),
        document: "runbook.md#ledgerdstalled",
        link: None,
    }
}

fn silent_stream(stream: &StreamAnswer) -> Option<Card> {
    let StreamAnswer::Silent(why) = stream else { return None };
    Some(Card {
        kind: "stream_silent",
        is_urgent: true,
        title: "NATS does not answer the console".to_owned(),
        says: format!("What waits in the stream is not known: {why}."),
        cure: "Start nats-server, or correct [nats] in the console's configuration.".to_owned(),
        document: "runbook.md#ledgerddependencydown",
        link: None,
    })
}

fn budget(spending: &Spending) -> Option<Card> {
    let (kind, is_urgent, title) = match spending.status.as_deref()? {
        "EXCEEDED" => ("budget_exceeded", true, format!("{} is over its budget", spending.name)),
        "RED" => ("budget_near", false, format!("{} is near its budget", spending.name)),
        _ => return None,
    };
    let limit = spending.limit_usd.as_deref().unwrap_or("0");
    let mut says = format!("{} of {limit} USD today", spending.spent_usd);
    if let Some(time) = spending.since.as_deref().and_then(|since| since.get(11..16)) {
        let _ = write!(says, ", since {time} UTC");
    }
    says.push('.');
    if let (Some(by), Some(at)) = (&spending.set_by, spending.set_at.as_deref().and_then(|at| at.get(..10))) {
        let _ = write!(says, " The limit is {by}'s, of {at}.");
    }
    let address = match spending.members {
        Some(_) => "/money".to_owned(),
        None => format!("/money/{}", utf8_percent_encode(&spending.name, NON_ALPHANUMERIC)),
    };
    Some(Card {
        kind,
        is_urgent,
        title,
        says,
        cure: "Stop the agent where it spends without need, or publish a higher limit.".to_owned(),
        document: "budgets.md#over-or-near-a-limit",
        link: Some(CardLink { text: "the calls behind it", address }),
    })
}

fn dead_letters(open: &[OpenLetters]) -> Option<Card> {
    let total: i64 = open.iter().map(|it| it.letters).sum();
    if total == 0 {
        return None;
    }
    let at_least = if total >= LETTERS_MAX { "At least " } else { "" };
    let title = match total {
        1 => "1 dead letter waits for a decision".to_owned(),
        _ => format!("{at_least}{} dead letters wait for a decision", grouped(total)),
    };
    let says = match open {
        [one] => format!("Its reason is {}: {}", one.reason, one.detail),
        several => {
            let counts: Vec<String> = several.iter().map(|it| format!("{} {}", it.letters, it.reason)).collect();
            format!("By reason: {}.", listed(counts.iter().map(String::as_str)))
        }
    };
    let address = match open {
        [one] => format!("/rejects?reason={}", utf8_percent_encode(&one.reason, NON_ALPHANUMERIC)),
        _ => "/rejects".to_owned(),
    };
    Some(Card {
        kind: "open_dead_letters",
        is_urgent: false,
        title,
        says,
        cure: "Correct the publisher; then requeue or discard each.".to_owned(),
        document: "runbook.md#ledgerdrejects",
        link: Some(CardLink { text: "look and decide", address }),
    })
}

fn signature(config: &Config, facts: &Facts) -> Option<Card> {
    let trust = || Some(CardLink { text: "what can be trusted", address: "/trust".to_owned() });
    let Some(checkpoint) = &facts.checkpoint else {
        let oldest = facts.extent.oldest_seconds?;
        return (oldest > UNSIGNED_MIN.as_secs_f64()).then(|| Card {
            kind: "log_not_signed",
            is_urgent: false,
            title: "The log is not signed".to_owned(),
            says: "Whoever can write to the database can rewrite the record, and nobody could prove it.".to_owned(),
            cure: "Make a key with ledgerd keygen, and set checkpoint.key_file.".to_owned(),
            document: "verifying.md#signing",
            link: trust(),
        });
    };
    let bound = UNSIGNED_MIN.max(config.checkpoint.interval * 2).as_secs_f64();
    let unsigned = checkpoint.unsigned_seconds.filter(|seconds| *seconds > bound)?;
    let behind = facts.extent.entries - checkpoint.tree_size;
    Some(Card {
        kind: "checkpoint_old",
        is_urgent: true,
        title: "New entries are not signed".to_owned(),
        says: format!(
            "{} entries lack a signature, the oldest for {}. The newest checkpoint covers {}.",
            grouped(behind),
            short_duration(unsigned),
            grouped(checkpoint.tree_size)
        ),
        cure: "Read in the daemon's log why it does not sign.".to_owned(),
        document: "runbook.md#ledgerdcheckpointrefusing",
        link: trust(),
    })
}

fn verification(facts: &Facts) -> Option<Card> {
    let link = Some(CardLink { text: "the last run", address: "/trust".to_owned() });
    let overdue = |says: String| Card {
        kind: "verify_overdue",
        is_urgent: false,
        title: "The ledger was not verified lately".to_owned(),
        says,
        cure: "Run ledgerd verify, and enable ledgerd-verify.timer.".to_owned(),
        document: "verify.md",
        link: link.clone(),
    };
    match &facts.runs.verify {
        Some(run) if run.findings > 0 => Some(Card {
            kind: "verify_found",
            is_urgent: true,
            title: format!("{} differences in the record", grouped(run.findings)),
            says: match run.summary["first"][0].as_str() {
                Some(first) => format!("The first: {first}"),
                None => "The last verification found them.".to_owned(),
            },
            cure: "Find out who changed it; ledgerd verify names each. What custody proves can be made anew."
                .to_owned(),
            document: "runbook.md#ledgerdcheckpointrefusing",
            link,
        }),
        Some(run) if run.ago_seconds > VERIFY_AGE_MAX => {
            Some(overdue(format!("The last verification of the whole was {} ago.", short_duration(run.ago_seconds))))
        }
        None if facts.extent.oldest_seconds? > VERIFY_AGE_MAX => {
            Some(overdue("No verification of the whole is on record.".to_owned()))
        }
        _ => None,
    }
}

fn reconciliation(facts: &Facts) -> Option<Card> {
    let link = Some(CardLink { text: "the last run", address: "/trust".to_owned() });
    let overdue = |says: String| Card {
        kind: "reconcile_overdue",
        is_urgent: false,
        title: "The ledger was not compared with the stream lately".to_owned(),
        says,
        cure: "Run ledgerd reconcile, and enable ledgerd-reconcile.timer.".to_owned(),
        document: "operate.md",
        link: link.clone(),
    };
    match &facts.runs.reconcile {
        Some(run) if run.findings > 0 => Some(Card {
            kind: "reconcile_found",
            is_urgent: true,
            title: "The ledger is not what the stream holds".to_owned(),
            says: match run.summary["missing"].as_i64() {
                Some(missing) if missing > 0 => {
                    format!("{} sequences below the lanes' positions are missing.", grouped(missing))
                }
                _ => "The stream went back: it was restored from an older copy, or lost data.".to_owned(),
            },
            cure: "Run ledgerd reconcile --repair.".to_owned(),
            document: "runbook.md#ledgerdincomplete",
            link,
        }),
        Some(run) if run.ago_seconds > RECONCILE_AGE_MAX => {
            Some(overdue(format!("The last comparison was {} ago.", short_duration(run.ago_seconds))))
        }
        None if facts.extent.oldest_seconds? > RECONCILE_AGE_MAX => {
            Some(overdue("No comparison is on record.".to_owned()))
        }
        _ => None,
    }
}

fn gaps(facts: &Facts) -> Option<Card> {
    let newest = facts.troubles.gaps.first()?;
    let lost: i64 = facts.troubles.gaps.iter().map(|gap| gap.sequences).sum();
    Some(Card {
        kind: "gap",
        is_urgent: true,
        title: "The stream lost messages before they were read".to_owned(),
        says: format!(
            "Up to {} sequences, the newest on lane {}, noticed {}: {}.",
            grouped(lost),
            newest.lane,
            newest.noticed_at,
            newest.why
        ),
        cure: "Ask the publishers to publish them again. The card goes seven days after the gap was noticed."
            .to_owned(),
        document: "runbook.md#ledgerdgap",
        link: Some(CardLink { text: "all gaps", address: "/trust".to_owned() }),
    })
}

fn refused(facts: &Facts) -> Option<Card> {
    let refused = &facts.troubles.refused;
    let newest = refused.newest.as_deref()?;
    Some(Card {
        kind: "webhooks_refused",
        is_urgent: false,
        title: "The webhooks refuse callers".to_owned(),
        says: format!("{} callers, {} calls; the newest: {newest}.", grouped(refused.callers), grouped(refused.calls)),
        cure: "Give the caller a token, or correct the one it has.".to_owned(),
        document: "runbook.md#ledgerdwebhookrefusals",
        link: None,
    })
}
