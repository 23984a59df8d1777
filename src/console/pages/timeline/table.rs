//! Lines of the timeline as rows of a table, and as CSV.

use crate::console::elements::{agent, outcome, record, task, time};
use crate::query::timeline::TimelineLine;
use maud::{Markup, html};

pub(crate) fn rows(lines: &[TimelineLine]) -> Markup {
    html! { @for line in lines { (row(line)) } }
}

pub(crate) fn row(line: &TimelineLine) -> Markup {
    html! {
        tr .rejected[line.is_reject()] data-leaf=(line.leaf_index) {
            td { (time(&line.time)) }
            td { (agent(&line.actor)) }
            td {
                span .quiet { (line.lane) } " "
                @match &line.reason {
                    Some(reason) => {
                        code { (reason) }
                        @if let Some(detail) = &line.detail { div .quiet { (detail) } }
                    }
                    None => {
                        (line.what())
                        @if let Some(summary) = &line.summary { div .quiet { (summary) } }
                    }
                }
                @if let Some(trace) = &line.trace_id {
                    div .quiet { "trace " a href={ "/search?q=" (trace) } { code { (trace) } } }
                }
            }
            td { (outcome(&line.outcome)) }
            td { @if let Some(id) = &line.task_id { (task(id)) } }
            td .number { (record(line.leaf_index, line.record_id.as_deref())) }
        }
    }
}

const COLUMNS: [&str; 12] = [
    "leaf_index",
    "time",
    "actor",
    "lane",
    "kind",
    "action",
    "outcome",
    "reason",
    "detail",
    "task_id",
    "record_id",
    "trace_id",
];

/// RFC 4180, with a header line. A field that a spreadsheet would take for a formula is led by an apostrophe.
pub(crate) fn csv(lines: &[TimelineLine]) -> String {
    let mut text = format!("{}\r\n", COLUMNS.join(","));
    for line in lines {
        let leaf = line.leaf_index.to_string();
        let or_empty = |field: &Option<String>| field.clone().unwrap_or_default();
        let fields = [
            leaf,
            line.time.clone(),
            line.actor.clone(),
            line.lane.clone(),
            line.kind.name().to_owned(),
            or_empty(&line.action),
            line.outcome.clone(),
            or_empty(&line.reason),
            or_empty(&line.detail),
            or_empty(&line.task_id),
            or_empty(&line.record_id),
            or_empty(&line.trace_id),
        ];
        text.push_str(&fields.map(|field| quoted(&field)).join(","));
        text.push_str("\r\n");
    }
    text
}

fn quoted(field: &str) -> String {
    let guard = if field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { "'" } else { "" };
    if guard.is_empty() && !field.contains([',', '"', '\r', '\n']) {
        return field.to_owned();
    }
    format!("\"{guard}{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_neither_a_formula_nor_the_end_of_another() {
        for (field, written) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"no\"", "\"say \"\"no\"\"\""),
            ("line\nbreak", "\"line\nbreak\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM", "\"'@SUM\""),
            ("\t=1", "\"'\t=1\""),
        ] {
            assert_eq!(quoted(field), written);
        }
    }
}
