//! A published message on a page: its bytes, its headers, or why they are gone.

use crate::console::elements::{address, time};
use crate::query::published::Published;
use crate::query::record::Erasure;
use maud::{Markup, html};

pub(crate) fn message(published: &Published, erasure: Option<&Erasure>) -> Markup {
    html! {
        @match (&published.payload, published.bytes) {
            (Some(payload), Some(bytes)) => {
                p .quiet { (bytes) " bytes" @if !published.exact { ", which are not plain text: they are shown escaped" } }
                // A browser drops the first line break behind the tag.
                pre id=[published.exact.then_some("published-bytes")] tabindex="0" { "\n" (payload) }
            },
            _ => (gone(erasure)),
        }
        (headers(published))
    }
}

fn gone(erasure: Option<&Erasure>) -> Markup {
    html! {
        @match erasure {
            Some(Erasure { authorized_by, event_id, at, archived_in }) => p {
                span .tag .warn { "erased" } " The bytes were erased under authorisation"
                @if let Some(at) = at { ", " (time(at)) }
                @if let Some(id) = authorized_by { ", by " a href=(address("/event", id)) { (id) } }
                @if let Some(id) = event_id { ". The erasure is recorded as " a href=(address("/event", id)) { (id) } }
                @if let Some(place) = archived_in { ". The row was archived in " code { (place) } }
                ". The leaf keeps their SHA-256."
            },
            None => p .error role="alert" {
                "The bytes are missing, and no erasure says why. " code { "ledgerd verify" } " says more."
            },
        }
    }
}

pub(crate) fn headers(published: &Published) -> Markup {
    html! {
        @if let Some(block) = &published.unparsed_headers {
            h3 { "Headers" }
            p .quiet { "Nobody can parse them: they are shown escaped." }
            pre { (block) }
        }
        @if !published.headers.is_empty() {
            h3 { "Headers" }
            table .facts {
                tbody { @for header in &published.headers { tr { th scope="row" .mono { (header.name) } td .mono { (header.value) } } } }
            }
        }
    }
}
