//! The causes and cures of rejects, as docs/rejects.md has them: the pages show the same words.

use maud::{Markup, html};
use std::sync::LazyLock;

const DOCUMENT: &str = include_str!("../../docs/rejects.md");

/// A row of the document's tables.
#[derive(Debug)]
pub(crate) struct RejectAdvice {
    /// The lane whose section it stands in.
    lane: Option<&'static str>,
    codes: Vec<&'static str>,
    pub(crate) cause: &'static str,
    pub(crate) cure: &'static str,
}

static CURES: LazyLock<Vec<RejectAdvice>> = LazyLock::new(|| {
    let (mut lane, mut cures) = (None, Vec::new());
    for line in DOCUMENT.lines() {
        if line.starts_with("## ") {
            lane = line.split("`ledger.").nth(1).and_then(|rest| rest.split('.').next());
        }
        cures.extend(row(line, lane));
    }
    cures
});

fn row(text: &'static str, lane: Option<&'static str>) -> Option<RejectAdvice> {
    let cells: Vec<&str> = text.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let [codes, cause, _example, cure] = cells[..] else { return None };
    let codes: Vec<&str> = codes.split('`').skip(1).step_by(2).collect();
    (!codes.is_empty()).then_some(RejectAdvice { lane, codes, cause, cure })
}

/// What the document says of a reason: first what it says of the lane.
pub(crate) fn cures(reason: &str, lane: &str) -> Vec<&'static RejectAdvice> {
    let of = |wanted: Option<&str>| {
        let wanted = wanted.map(str::to_owned);
        CURES.iter().filter(move |cure| cure.lane == wanted.as_deref() && cure.codes.contains(&reason))
    };
    of(Some(lane)).chain(of(None)).collect()
}

/// A sentence of the document: code stands in its own letters, and of a link the words.
pub(crate) fn sentence(text: &str) -> Markup {
    let words = without_links(text);
    html! {
        @for (at, part) in words.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn without_links(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((name, after)) =
            link.split_once("](").and_then(|(name, address)| Some((name, address.split_once(')')?.1)))
        else {
            break;
        };
        words.extend([before, name]);
        rest = after;
    }
    words + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::reject::Reason;

    #[test]
    fn every_reason_has_a_cure_on_every_lane() {
        for reason in Reason::ALL {
            let found = cures(reason.code(), "EXEC");
            assert!(
                !found.is_empty() && found.iter().all(|it| !it.cause.is_empty() && !it.cure.is_empty()),
                "{reason}"
            );
        }
        assert!(cures("bad_event_id", "TOKENS").len() > cures("bad_event_id", "EXEC").len());
        assert!(cures("bad_event_id", "TOKENS")[0].cause.contains("usage_id"));
        assert!(cures("none", "EXEC").is_empty());
    }

    #[test]
    fn a_sentence_keeps_its_words() {
        assert_eq!(without_links("set [`a = 1`](#b), or [c](d) [e"), "set `a = 1`, or c [e");
        assert_eq!(sentence("use `a`, <b>").into_string(), "use <code>a</code>, &lt;b&gt;");
    }
}
