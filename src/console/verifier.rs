//! The check of a proof in the visitor's browser: a card of the page of a record, and a page of its own that works offline.

use crate::command::{Exit, Failure, output};
use crate::console::assets::{STYLE, VERIFY, VERIFY_PAGE};
use crate::console::site::Shared;
use crate::record::digest::sha256;
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use std::path::Path;

/// Where the card gets the proof from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ProofSource<'a> {
    /// The console has the proof of this leaf.
    Console { address: &'a str, leaf_index: u64 },
    /// The visitor has a file.
    File,
}

/// The card. The script fills it; without one it says what to do.
pub(crate) fn card(source: ProofSource<'_>) -> Markup {
    let console = match source {
        ProofSource::Console { address, leaf_index } => Some((address, leaf_index)),
        ProofSource::File => None,
    };
    html! {
        section #verification .card aria-labelledby="verification-title"
            data-proof=[console.map(|(address, _)| address)] data-leaf=[console.map(|(_, leaf)| leaf)] {
            h2 #verification-title { "Verified in this browser" }
            noscript {
                p { "Your browser runs no script, so it checks nothing. Download the proof and check it with "
                    code { "ledgerd verify-proof FILE --key VKEY" } "." }
            }
            @if console.is_none() {
                p {
                    label for="proof-file" { "Choose a proof, or drop it anywhere on this page" }
                    input #proof-file .proof-file type="file" accept=".tlog-proof";
                    span .file-name .quiet {}
                }
            }
            p .verdict role="status" {}
            ol .steps {}
            (keys())
            @if console.is_none() { div .proven-entry {} }
        }
    }
}

/// The visitor's keys, which the script shows.
fn keys() -> Markup {
    html! {
        p .pinned hidden {
            "Your key: " code .pinned-key {} span .pinned-since .quiet {} " "
            button .change-key type="button" { "Change the key" }
        }
        form .key-form hidden {
            label for="verifier-key" { "The log's verifier key" }
            input #verifier-key .verifier-key .mono required autocomplete="off" spellcheck="false"
                placeholder="example.com/ledger+0123abcd+AW…";
            p .quiet { "Take it from another source than this page: a contract, the company's web page, an old mail. It stays in this browser." }
            label for="witness-keys" { "Keys of witnesses that must have cosigned, one a line; may stay empty" }
            textarea #witness-keys .witness-keys .mono rows="2" spellcheck="false" {}
            p .key-error .error role="alert" hidden {}
            button .primary { "Remember this key" }
        }
        div .key-warning role="alert" hidden {
            p .key-warning-text {}
            button .keep-key type="button" { "Keep the key that I had" } " "
            button .replace-key type="button" { "Replace it" }
        }
    }
}

/// One file with all that it needs: it asks no network, and runs no script but its own.
pub(crate) fn standalone() -> Markup {
    let policy = format!(
        "default-src 'none'; script-src {} {}; style-src {}; base-uri 'none'; form-action 'none'",
        source_hash(VERIFY),
        source_hash(VERIFY_PAGE),
        source_hash(STYLE)
    );
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Check a proof · ledgerd" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main #content {
                    h1 { "Check a proof of a ledger" }
                    p { "This page checks a " code { ".tlog-proof" } " with your browser alone. It sends nothing anywhere, and works without a network." }
                    (card(ProofSource::File))
                }
                script { (PreEscaped(VERIFY)) }
                script { (PreEscaped(VERIFY_PAGE)) }
            }
        }
    }
}

/// How a policy names an inline script or style.
fn source_hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(sha256(text.as_bytes())))
}

/// The offline page, to be kept: it says nothing of the record, so everybody gets it.
pub(crate) fn router() -> Router<Shared> {
    Router::new().route("/verifier.html", get(download))
}

async fn download() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"ledgerd-verifier.html\""),
    ];
    (headers, standalone().into_string())
}

/// `ledgerd console --export-verifier FILE`.
pub(crate) fn export(file: &Path) -> Result<(), Failure> {
    let text = standalone().into_string();
    if file.as_os_str() == "-" {
        output::text(&text);
        return Ok(());
    }
    let written = std::fs::write(file, text);
    written.map_err(|error| Failure::new(Exit::Failed, format!("cannot write {}: {error}", file.display())))?;
    output::line(format_args!("{}: open it in a browser, and drop a proof on it", file.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that ends the element it stands in would be another script than the one that the policy names.
    #[test]
    fn scripts_and_style_stay_inside_their_elements() {
        for text in [VERIFY, VERIFY_PAGE, STYLE] {
            let lower = text.to_ascii_lowercase();
            assert!(!lower.contains("</script") && !lower.contains("</style") && !lower.contains("<!--"));
        }
    }

    #[test]
    fn the_offline_page_asks_nobody() {
        let page = standalone().into_string();
        assert!(!page.contains("src=") && !page.contains("href=") && !page.contains("@import"), "{page}");
    }
}
