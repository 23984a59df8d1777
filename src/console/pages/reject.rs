//! The page of one reject: its bytes with the fault marked, its cure, and the decision about it, with a preview.

use crate::command::{Exit, Failure};
use crate::console::cures::{cures, sentence};
use crate::console::elements::{address, time};
use crate::console::fault::Fault;
use crate::console::form::OperatorForm;
use crate::console::layout::{Screen, page};
use crate::console::operator::{Granted, Operator, Wish, Wished};
use crate::console::pages::{published, rejects};
use crate::console::site::{Shared, Site};
use crate::console::visitor::Visitor;
use crate::dead_letter::recording;
use crate::query::rejects::{MarkedFault, Reject, RejectDecision};
use crate::record::subject::lane_of;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

/// What the form of this page says.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct DecisionFields {
    decision: String,
    #[serde(default)]
    why: String,
    /// A box: it is there where it is ticked.
    again: Option<String>,
}

pub(crate) async fn show(
    State(site): State<Shared>,
    visitor: Visitor,
    Path(leaf_index): Path<i64>,
) -> Result<Markup, Fault> {
    let reject = found(&site, leaf_index).await?;
    Ok(laid_out(&reject, &decision_form(&site, &visitor, &reject, None, None)))
}

/// Says what a decision would do.
pub(crate) async fn preview(
    State(site): State<Shared>,
    Path(leaf_index): Path<i64>,
    form: OperatorForm<DecisionFields>,
) -> Result<Markup, Fault> {
    let reject = found(&site, leaf_index).await?;
    let OperatorForm { visitor, fields } = form;
    let outcome = match wish(leaf_index, &visitor, &fields) {
        Err(why) => Err(why),
        Ok(wish) => match operator(&site)?.preview(&wish).await? {
            Granted::Refused(why) => Err(format!("This cannot be done: {why}.")),
            _ => Ok(confirmation(&site, &visitor, &reject, &fields)),
        },
    };
    Ok(match outcome {
        Ok(confirmation) => laid_out(&reject, &confirmation),
        Err(why) => laid_out(&reject, &decision_form(&site, &visitor, &reject, Some(&fields), Some(&why))),
    })
}

/// Decides, and leads back to the reject.
pub(crate) async fn decide(
    State(site): State<Shared>,
    Path(leaf_index): Path<i64>,
    form: OperatorForm<DecisionFields>,
) -> Result<Response, Fault> {
    let OperatorForm { visitor, fields } = form;
    let refused = match wish(leaf_index, &visitor, &fields) {
        Err(why) => why,
        Ok(wish) => match operator(&site)?.carry_out(&wish).await? {
            Granted::Refused(why) => format!("This cannot be done: {why}."),
            _ => return Ok(Redirect::to(&format!("/rejects/{leaf_index}")).into_response()),
        },
    };
    let reject = found(&site, leaf_index).await?;
    Ok(laid_out(&reject, &decision_form(&site, &visitor, &reject, Some(&fields), Some(&refused))).into_response())
}

async fn found(site: &Site, leaf_index: i64) -> Result<Reject, Fault> {
    site.reader.reject(leaf_index).await?.ok_or(Fault::NoSuchReject(leaf_index))
}

const ONLY_READS: &str = "this console only reads: console.operator_database_url is not set";

fn operator(site: &Site) -> Result<&Operator, Fault> {
    site.operator.as_ref().ok_or(Fault::Forbidden(ONLY_READS))
}

/// What the fields ask for, or a sentence about what is wrong with them.
fn wish(leaf_index: i64, visitor: &Visitor, fields: &DecisionFields) -> Result<Wish, String> {
    let what = match fields.decision.as_str() {
        "requeue" => Wished::Requeue { again: fields.again.is_some() },
        "discard" => Wished::Discard,
        _ => return Err("Choose what is to be done: requeue or discard.".to_owned()),
    };
    let why = recording::reason(&fields.why).map_err(|why| format!("The reason cannot be used: {why}."))?;
    let by = recording::name(&visitor.name).map_err(|why| format!("The name of your token cannot be used: {why}."))?;
    Ok(Wish { leaf_index, what, by, why })
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        match failure.exit {
            Exit::Unavailable => Self::Unavailable(failure.what),
            _ => Self::Refused(failure.what),
        }
    }
}

fn laid_out(reject: &Reject, decision: &Markup) -> Markup {
    let line = &reject.summary;
    let name = format!("Reject {}", line.reference);
    let content = html! {
        nav .quiet aria-label="Where this is" { a href="/rejects" { "Rejects" } " › " (line.reason) }
        h1 { (name) " " (rejects::state(line.state)) }
        div .cards {
            section .card aria-labelledby="why" { (why(reject)) }
            section .card aria-labelledby="decide" { h2 #decide { "Decide" } (decision) (decisions(&reject.decisions)) }
            section .card aria-labelledby="published" {
                h2 #published { "As it was published" }
                @match &reject.fault {
                    Some(fault) => { (marked(fault)) (published::headers(&reject.message)) },
                    None => (published::message(&reject.message, None)),
                }
            }
        }
    };
    page(&name, Screen::Rejects, &content)
}

fn why(reject: &Reject) -> Markup {
    let line = &reject.summary;
    html! {
        h2 #why { "Why it was rejected" }
        p { code { (line.reason) } ": " (line.detail) }
        @for cure in cures(&line.reason, lane_of(&line.subject)) {
            dl .facts { dt { "Cause" } dd { (sentence(cure.cause)) } dt { "Cure" } dd { (sentence(cure.cure)) } }
            hr;
        }
        table .facts {
            tbody {
                tr { th scope="row" { "Subject" } td .mono { (line.subject) ", sequence " (line.sequence) } }
                @if let Some(id) = &line.record_id { tr { th scope="row" { "Record id" } td { a href={ "/record/" (line.leaf_index) } .mono { (id) } } } }
                tr { th scope="row" { "Rejected" } td { (time(&line.rejected_at)) } }
                tr {
                    th scope="row" { "Published as" }
                    td .mono { (reject.dlq_subject) @if !line.published { " " span .tag .warn { "waiting to be published" } } }
                }
                tr { th scope="row" { "Entry" } td { a href={ "/record/" (line.leaf_index) } { "leaf " (line.leaf_index) ", with its proof" } } }
            }
        }
    }
}

fn marked(fault: &MarkedFault) -> Markup {
    html! {
        p .quiet { "The part that the reason is about is marked. Bytes that are not plain text are shown escaped." }
        pre tabindex="0" { "\n" (fault.before) mark { (fault.fault) } (fault.after) }
    }
}

fn decisions(made: &[RejectDecision]) -> Markup {
    html! {
        @if !made.is_empty() {
            h3 { "Decided so far" }
            ol {
                @for one in made {
                    li {
                        (one.action.to_lowercase()) " by " strong { (one.by) } ", " (time(&one.decided_at))
                        @if let Some(why) = &one.why { ", because: " (why) }
                        ". Recorded as " a href=(address("/event", &one.event_id)) { (one.event_id) } ". "
                        @if let Some(sequence) = one.sequence { "It is sequence " (sequence) " of the stream: " (one.outcome.unwrap_or("awaited")) }
                        @if let Some(reference) = &one.rejected_as { " again as " code { (reference) } }
                    }
                }
            }
        }
    }
}

/// The form, or what is missing for it.
fn decision_form(
    site: &Site,
    visitor: &Visitor,
    reject: &Reject,
    said: Option<&DecisionFields>,
    refusal: Option<&str>,
) -> Markup {
    let leaf_index = reject.summary.leaf_index;
    let reference = &reject.summary.reference;
    if site.operator.is_none() || !visitor.may_operate() {
        let why = if site.operator.is_none() {
            "This console only reads: console.operator_database_url is not set."
        } else {
            "Only a visitor who signed in with a token of the role operate decides."
        };
        return html! { p { (why) } p .quiet { "On the server: " code { "ledgerd dlq requeue " (reference) " --by NAME" } } };
    }
    let is_chosen = |name: &str| said.is_some_and(|said| said.decision == name);
    html! {
        @if let Some(why) = refusal { p .error role="alert" { (why) } }
        form .decision method="post" action={ "/rejects/" (leaf_index) "/preview" } {
            (visitor.form_field())
            fieldset {
                legend { "What is to be done" }
                label { input type="radio" name="decision" value="requeue" required checked[is_chosen("requeue")]; " Requeue: publish the same bytes again" }
                label { input type="radio" name="decision" value="discard" checked[is_chosen("discard")]; " Discard: let it rest; the bytes are kept" }
            }
            label { input type="checkbox" name="again" value="yes" checked[said.is_some_and(|said| said.again.is_some())]; " Also where it was discarded, or came back for the same reason" }
            label for="decision-why" { "Reason, for the record" }
            input #decision-why name="why" required maxlength="1000" value=(said.map(|said| said.why.as_str()).unwrap_or_default());
            button { "Preview" }
        }
    }
}

/// What would be done, and the button that does it.
fn confirmation(site: &Site, visitor: &Visitor, reject: &Reject, fields: &DecisionFields) -> Markup {
    let line = &reject.summary;
    let stream = site.operator.as_ref().map_or("", Operator::stream);
    let is_requeue = fields.decision == "requeue";
    html! {
        div .preview role="status" {
            @if is_requeue {
                p { "This would publish " strong { (reject.message.bytes.unwrap_or(0)) " bytes" } " again, once, on " code { (line.subject) }
                    " of the stream " code { (stream) } ". The ledger then judges them by the rules of today." }
            } @else {
                p { "This would set " strong { (line.reference) } " aside. Its bytes stay in the ledger, and it can be requeued later." }
            }
            p { "The decision is recorded as an event under the name " strong { (visitor.name) } ", because: " (fields.why.trim()) }
        }
        form method="post" action={ "/rejects/" (line.leaf_index) "/decide" } {
            (visitor.form_field())
            input type="hidden" name="decision" value=(fields.decision);
            input type="hidden" name="why" value=(fields.why.trim());
            @if fields.again.is_some() { input type="hidden" name="again" value="yes"; }
            button .primary { @if is_requeue { "Requeue" } @else { "Discard" } } " "
            a .button href={ "/rejects/" (line.leaf_index) } { "Back" }
        }
    }
}
