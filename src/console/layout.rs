//! The frame of every page: its head, the way to the other screens, and the search box.

use crate::console::visitor::{VISITOR, Visitor};
use maud::{DOCTYPE, Markup, html};

/// Which of the screens a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    Now,
    Timeline,
    Money,
    Rejects,
    Trust,
    /// One that the way at the top does not name.
    Other,
}

const SCREENS: [(Screen, &str, &str); 5] = [
    (Screen::Now, "/", "Now"),
    (Screen::Timeline, "/timeline", "Timeline"),
    (Screen::Money, "/money", "Money"),
    (Screen::Rejects, "/rejects", "Rejects"),
    (Screen::Trust, "/trust", "Trust"),
];

pub(crate) fn page(title: &str, screen: Screen, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · ledgerd" }
                link rel="stylesheet" href="/assets/console.css";
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                script src="/assets/console.js" defer {}
            }
            body {
                a .skip href="#content" { "Skip to the content" }
                header {
                    a .name href="/" { "ledgerd" }
                    nav aria-label="Screens" {
                        @for (of, address, name) in SCREENS {
                            a href=(address) aria-current=[(of == screen).then_some("page")] { (name) }
                        }
                    }
                    form .search role="search" action="/search" {
                        input type="search" name="q" required aria-label="Search by any id"
                            placeholder="any id: event, task, proposal, leaf, reject, trace";
                    }
                    @if let Ok(Some(form)) = VISITOR.try_with(sign_out) { (form) }
                }
                main #content tabindex="-1" { (content) }
            }
        }
    }
}

/// Who has signed in, and the way out.
fn sign_out(visitor: &Visitor) -> Option<Markup> {
    visitor.form_key()?;
    Some(html! {
        form .visitor method="post" action="/logout" {
            (visitor.form_field())
            span .quiet { (visitor.name) ", " (visitor.role) }
            button { "Sign out" }
        }
    })
}
