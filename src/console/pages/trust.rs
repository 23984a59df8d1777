//! The screen *Trust*: what was signed and checked, what was removed, and plainly what cannot be seen from here.

use crate::console::elements::{address, empty, time};
use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use crate::console::site::Shared;
use crate::query::checkpoints::NewestCheckpoint;
use crate::query::glance::{grouped, short_duration};
use crate::query::kept_checkpoint::{KeptCheckpoint, KeptVerdict};
use crate::query::runs::CheckRun;
use crate::query::trust::{SignedQuarter, Trust, TrustQuestion};
use axum::extract::{Query, State};
use maud::{Markup, html};

pub(crate) async fn show(State(site): State<Shared>, Query(question): Query<TrustQuestion>) -> Result<Markup, Fault> {
    let trust = site.reader.trust(&site.config, &question).await?;
    let content = html! {
        h1 { "Trust" }
        div .cards {
            section .card { h2 { "The log" } (log(&trust)) }
            section .card { h2 { "Last verification of the whole" } (verification(trust.runs.verify.as_ref())) }
            section .card { h2 { "Last comparison with the stream" } (reconciliation(&trust)) }
            section .card { h2 { "What cannot be seen here" } (unseen()) }
        }
        (kept_form(&question, trust.kept.as_ref()))
        section .card { h2 { "How soon entries were signed, last 24 hours" } (strip(&trust.signatures)) }
        section .card { h2 { "What the stream lost before it was read" } (gaps(&trust)) }
        section .card { h2 { "What was removed, and by whose word" } (removals(&trust)) }
        section .card { h2 { "Epochs of the streams" } (epochs(&trust)) }
    };
    Ok(page("Trust", Screen::Trust, &content))
}

fn log(trust: &Trust) -> Markup {
    let Some(newest) = trust.checkpoints.first() else {
        return html! {
            p { span .tag.warn { "not signed" } }
            p { "Whoever can write to the database can rewrite the record. " code { "ledgerd keygen" } " makes the key that signs the log." }
        };
    };
    html! {
        table {
            tbody {
                tr { th scope="row" { "Name" } td { (newest.origin) } }
                tr {
                    th scope="row" { "Verifier key" }
                    td {
                        @match &trust.verifier_key {
                            Some(key) => { code { (key) } p .quiet { "Compare it with your own copy, which did not come from here." } }
                            None => {
                                p .quiet { "This console does not have it. The newest checkpoint names the key " code { (key_line(newest)) } "." }
                            }
                        }
                    }
                }
                tr { th scope="row" { "Newest checkpoint" } td { (grouped(newest.tree_size)) " entries, " (time(&newest.signed_at)) } }
                tr {
                    th scope="row" { "Not signed yet" }
                    td {
                        (grouped(trust.extent.entries - newest.tree_size)) " entries"
                        @if let Some(seconds) = newest.unsigned_seconds { ", the oldest for " (short_duration(seconds)) }
                    }
                }
                tr {
                    th scope="row" { "Witnesses" }
                    td {
                        @if newest.witnesses.is_empty() {
                            @if trust.witnesses == 0 { "none is configured" } @else { "0 of " (trust.witnesses) " cosigned it" }
                        } @else {
                            @for witness in &newest.witnesses { code { (witness) } " " }
                        }
                    }
                }
            }
        }
        details {
            summary { "the checkpoint, to keep on another machine" }
            pre { (newest.note) }
        }
        @if trust.checkpoints.len() > 1 {
            p .quiet { "Earlier names of the log: " @for other in &trust.checkpoints[1..] { code { (other.origin) } " (" (grouped(other.tree_size)) " entries) " } }
        }
    }
}

/// The name of the key in the note's own signature line.
fn key_line(checkpoint: &NewestCheckpoint) -> &str {
    let line = checkpoint.note.lines().find_map(|line| line.strip_prefix("\u{2014} "));
    line.and_then(|line| line.split(' ').next()).unwrap_or_default()
}

fn verification(run: Option<&CheckRun>) -> Markup {
    let Some(run) = run else {
        return empty(
            &html! { "No run is on record. " code { "ledgerd verify" } " recomputes everything, and puts its result on record." },
        );
    };
    let first = run.summary["first"].as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        p {
            @if run.findings == 0 { span .tag.good { "nothing differs" } } @else { span .tag.bad { (grouped(run.findings)) " differences" } }
            " " (short_duration(run.ago_seconds)) " ago"
        }
        p .quiet {
            (time(&run.ended_at)) ", " (grouped(run.entries)) " entries in " (short_duration(run.took_seconds)) ", by "
            code { (run.by_role) } ", ledgerd " (run.program_version)
        }
        p .quiet {
            "Known roots compared: " (run.summary["known_roots_compared"].as_u64().unwrap_or(0))
            ", of which from outside the database: " (run.summary["roots_from_outside"].as_u64().unwrap_or(0)) "."
        }
        @if !first.is_empty() {
            ul { @for line in first { li .mono { (line.as_str().unwrap_or_default()) } } }
        }
    }
}

fn reconciliation(trust: &Trust) -> Markup {
    html! {
        @match &trust.runs.reconcile {
            None => (empty(&html! { "No run is on record. " code { "ledgerd reconcile" } " compares the ledger with the stream." })),
            Some(run) => {
                p {
                    @if run.findings == 0 { span .tag.good { "nothing is missing" } }
                    @else { span .tag.bad { (grouped(run.findings)) " differences" } }
                    " " (short_duration(run.ago_seconds)) " ago"
                }
                p .quiet {
                    (time(&run.ended_at)) ", " (grouped(run.entries)) " sequences; proven through "
                    (grouped(run.summary["proven_through"].as_i64().unwrap_or(0))) " of "
                    (grouped(run.summary["last_sequence"].as_i64().unwrap_or(0)))
                }
            }
        }
        p .quiet {
            "The daemon itself counts all the time: "
            @match trust.extent.counted_seconds {
                Some(seconds) => { "every passed sequence was accounted for " (short_duration(seconds)) " ago." }
                None => "it has not counted yet.",
            }
        }
    }
}

/// The list of docs/verify.md, in short.
fn unseen() -> Markup {
    html! {
        ul {
            li { "A rewrite of everything, and of this page with it, unless you compare a checkpoint that you kept elsewhere." }
            li { "What was forged or removed before the first checkpoint that left the database." }
            li { "Whether what was published is true. The ledger proves that it was published." }
            li { "Runs on record are notes: whoever may write them may invent one. Verify yourself, with your own program." }
        }
        p .quiet { a href="/docs/verify.md#what-cannot-be-seen" { "the whole list" } }
    }
}

fn kept_form(question: &TrustQuestion, kept: Option<&KeptCheckpoint>) -> Markup {
    html! {
        form .card action="/trust" method="get" {
            h2 { label for="checkpoint" { "Check my kept checkpoint" } }
            p { "Paste a checkpoint that you kept. The answer says whether the present log contains what it vouches for." }
            @if let Some(kept) = kept { (answer(kept)) }
            textarea #checkpoint name="checkpoint" maxlength="16384" spellcheck="false" required { (question.checkpoint.as_deref().unwrap_or_default()) }
            p { button .primary type="submit" { "Check" } }
        }
    }
}

fn answer(kept: &KeptCheckpoint) -> Markup {
    let (kind, word) = match kept.verdict {
        KeptVerdict::Contained => ("good", "contained"),
        KeptVerdict::Different => ("bad", "different"),
        KeptVerdict::Longer => ("bad", "longer than the log"),
        KeptVerdict::NotStored => ("warn", "not comparable"),
        KeptVerdict::Unreadable => ("warn", "no checkpoint"),
    };
    html! {
        p role="alert" { span class={ "tag " (kind) } { (word) } " " (kept.says) }
        @if kept.tree_size.is_some() {
            p .quiet {
                @match kept.is_signed {
                    Some(true) => "Its signature is of the log's key.",
                    Some(false) => "It has no signature of the log's key: anybody may have made it.",
                    None => "Its signature was not checked, for this console has no key. " ,
                }
            }
        }
    }
}

fn strip(quarters: &[SignedQuarter]) -> Markup {
    const SOON: f64 = 60.0;
    const LATE: f64 = 900.0;
    if quarters.is_empty() {
        return empty(&html! { "Nothing was recorded before the last quarter of an hour." });
    }
    let worst = quarters.iter().map(|it| it.signed_after_seconds.unwrap_or(f64::MAX)).fold(0.0, f64::max);
    html! {
        svg .chart viewBox="0 0 960 24" role="img" aria-label="How soon entries were signed" {
            @for (quarter, place) in quarters.iter().zip(0_u32..) {
                @let (kind, says) = match quarter.signed_after_seconds {
                    Some(after) if after <= SOON => ("good", format!("signed within {}", short_duration(after))),
                    Some(after) if after <= LATE => ("warn", format!("signed after {}", short_duration(after))),
                    Some(after) => ("bad", format!("signed after {}", short_duration(after))),
                    None => ("bad", "not signed".to_owned()),
                };
                rect class=(kind) x=(place * 10) y="0" width="8" height="24" rx="1" { title { (quarter.ends_at) ": " (says) } }
            }
        }
        p .quiet {
            @if worst <= SOON { "All within a minute." }
            @else if worst < f64::MAX { "The longest wait was " (short_duration(worst)) "." }
            @else { "The newest entries, or all, are not signed." }
        }
    }
}

fn gaps(trust: &Trust) -> Markup {
    if trust.gaps.is_empty() {
        return empty(&html! { "No gap is on record." });
    }
    html! {
        table {
            thead { tr { th scope="col" { "Noticed" } th scope="col" { "Lane" } th scope="col" { "Sequences" } th scope="col" { "Why" } } }
            tbody {
                @for gap in &trust.gaps {
                    tr {
                        td { (time(&gap.noticed_at)) }
                        td { (gap.lane) }
                        td { (gap.first_sequence) " to " (gap.last_sequence) span .quiet { " epoch " (gap.epoch) } }
                        td { (gap.why) }
                    }
                }
            }
        }
    }
}

fn removals(trust: &Trust) -> Markup {
    if trust.removals.is_empty() {
        return empty(&html! { "Nothing was ever removed." });
    }
    html! {
        div .scroll {
            table {
                thead {
                    tr { th scope="col" { "Time" } th scope="col" { "Table" } th scope="col" .number { "Rows" } th scope="col" { "Why" } th scope="col" { "Event" } }
                }
                tbody {
                    @for removal in &trust.removals {
                        tr {
                            td { (time(&removal.at)) }
                            td { code { (removal.table_name) } }
                            td .number { (grouped(removal.row_count)) }
                            td {
                                @match &removal.authorized_by {
                                    Some(event) => { "erased, authorised by " a .mono href=(address("/event", event)) { (event) } }
                                    None => { "archived past its retention" @if let Some(location) = &removal.location { ", at " code { (location) } } }
                                }
                            }
                            td { a .mono href=(address("/event", &removal.event_id)) { (removal.event_id) } }
                        }
                    }
                }
            }
        }
    }
}

fn epochs(trust: &Trust) -> Markup {
    if trust.epochs.is_empty() {
        return empty(&html! { "No stream was read yet." });
    }
    html! {
        table {
            thead { tr { th scope="col" { "Epoch" } th scope="col" { "Stream" } th scope="col" { "Opened" } th scope="col" { "Begun because" } } }
            tbody {
                @for epoch in &trust.epochs {
                    tr {
                        td { (epoch.epoch) }
                        td { (epoch.stream) }
                        td { (time(&epoch.opened_at)) }
                        td { @if epoch.regressions == 0 { "the stream was made" } @else { "the stream went back, time " (epoch.regressions) } }
                    }
                }
            }
        }
    }
}
