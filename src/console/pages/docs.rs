//! The pages of docs/ that the cards refer to, as they were when the program was built: what to do is at hand where no other page is.

use crate::console::fault::Fault;
use crate::console::layout::{Screen, page};
use axum::extract::Path;
use maud::{Markup, PreEscaped, html};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};

const PAGES: [(&str, &str); 15] = [
    ("access.md", include_str!("../../../docs/access.md")),
    ("backup.md", include_str!("../../../docs/backup.md")),
    ("budgets.md", include_str!("../../../docs/budgets.md")),
    ("console.md", include_str!("../../../docs/console.md")),
    ("faq.md", include_str!("../../../docs/faq.md")),
    ("glossary.md", include_str!("../../../docs/glossary.md")),
    ("install.md", include_str!("../../../docs/install.md")),
    ("metrics.md", include_str!("../../../docs/metrics.md")),
    ("operate.md", include_str!("../../../docs/operate.md")),
    ("publish.md", include_str!("../../../docs/publish.md")),
    ("rejects.md", include_str!("../../../docs/rejects.md")),
    ("runbook.md", include_str!("../../../docs/runbook.md")),
    ("verify.md", include_str!("../../../docs/verify.md")),
    ("verifying.md", include_str!("../../../docs/verifying.md")),
    ("webhooks.md", include_str!("../../../docs/webhooks.md")),
];

pub(crate) async fn show(Path(name): Path<String>) -> Result<Markup, Fault> {
    let (_, text) = PAGES.iter().find(|(known, _)| *known == name).ok_or(Fault::NoSuchPage)?;
    let title = text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or(&name);
    Ok(page(title, Screen::Other, &html! { article .document { (rendered(text)) } }))
}

fn rendered(markdown: &str) -> Markup {
    let mut events: Vec<Event<'_>> = Parser::new_ext(markdown, Options::ENABLE_TABLES).collect();
    for at in 0..events.len() {
        let (before, rest) = events.split_at_mut(at + 1);
        match &mut before[at] {
            Event::Start(Tag::Heading { id, .. }) => *id = Some(anchor(rest).into()),
            // What lies outside of these pages is not here.
            Event::Start(Tag::Link { dest_url, .. }) if !is_here(dest_url) => *dest_url = CowStr::Borrowed("#"),
            Event::Html(text) | Event::InlineHtml(text) => before[at] = Event::Text(std::mem::replace(text, "".into())),
            _ => {}
        }
    }
    let mut html = String::new();
    pulldown_cmark::html::push_html(&mut html, events.into_iter());
    PreEscaped(html)
}

fn is_here(address: &str) -> bool {
    let file = address.split('#').next().unwrap_or_default();
    file.is_empty() || PAGES.iter().any(|(name, _)| *name == file)
}

/// The name that a link gives to a heading, as the documents' own links have it.
fn anchor(after: &[Event<'_>]) -> String {
    let inside = after.iter().take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
    let text: String = inside
        .filter_map(|event| match event {
            Event::Text(text) | Event::Code(text) => Some(text.as_ref()),
            _ => None,
        })
        .collect();
    let kept = text.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_have_their_addresses_and_links_stay_here() {
        let html = rendered("# A\n## LedgerdDown `x`\n[there](verify.md#the-whole) [outside](../src/a.rs) <b>\n")
            .into_string();
        assert!(html.contains("<h2 id=\"ledgerddown-x\">"), "{html}");
        assert!(html.contains("href=\"verify.md#the-whole\"") && html.contains("href=\"#\""), "{html}");
        assert!(html.contains("&lt;b&gt;"), "{html}");
    }
}
