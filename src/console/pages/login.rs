//! The pages `/login` and `/logout`: people sign in with a token, and hold a session then.

use crate::console::access;
use crate::console::fault::Fault;
use crate::console::form::SessionForm;
use crate::console::layout::{Screen, page};
use crate::console::site::Shared;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Form, Router};
use axum_extra::extract::cookie::CookieJar;
use bounded_listener::Caller;
use maud::{Markup, html};
use serde::Deserialize;

/// Where a visitor goes after signing in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Destination {
    next: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SignIn {
    token: String,
    next: String,
}

/// A form with no field but the key.
#[derive(Debug, Deserialize)]
pub(crate) struct NoFields {}

/// The page that is open to everybody.
pub(crate) fn router() -> Router<Shared> {
    Router::new().route("/login", get(ask).post(sign_in))
}

async fn ask(State(site): State<Shared>, Query(destination): Query<Destination>) -> Markup {
    if site.access.is_open() {
        let content = html! {
            h1 { "Sign in" }
            p { "Nobody needs to sign in: " code { "console.tokens" } " lists nobody, so everybody on this machine reads." }
            p { a href="/" { "To the overview" } }
        };
        return page("Sign in", Screen::Other, &content);
    }
    question(&destination.next, None)
}

fn question(next: &str, refusal: Option<&Fault>) -> Markup {
    let next = local(next);
    let content = html! {
        h1 { "Sign in" }
        @if let Some(why) = refusal { p .error role="alert" { (why) } }
        form .sign-in method="post" action="/login" {
            input type="hidden" name="next" value=(next);
            label for="token" { "Token" }
            input #token type="password" name="token" required autofocus autocomplete="current-password";
            button .primary { "Sign in" }
        }
        // A browser sends no session with a link of another site.
        p .quiet { "Signed in already, and sent here by a link: " a href=(next) { "go on" } "." }
    };
    page("Sign in", Screen::Other, &content)
}

async fn sign_in(
    State(site): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
    Form(form): Form<SignIn>,
) -> Response {
    match site.access.sign_in(&form.token, &headers, caller.address()) {
        Ok(cookie) => (CookieJar::new().add(cookie), Redirect::to(local(&form.next))).into_response(),
        Err(refusal) => {
            let fault = Fault::from(refusal);
            (fault.status(), fault.headers(), question(&form.next, Some(&fault))).into_response()
        }
    }
}

/// Ends the session.
pub(crate) async fn sign_out(
    State(site): State<Shared>,
    headers: HeaderMap,
    SessionForm { visitor, fields: NoFields {} }: SessionForm<NoFields>,
) -> impl IntoResponse {
    tracing::info!("{} signed out", visitor.name);
    site.access.sign_out(&headers);
    (StatusCode::SEE_OTHER, CookieJar::new().add(access::forgotten()), Redirect::to("/login"))
}

/// An address of this console, or the overview in place of any other.
fn local(address: &str) -> &str {
    let is_of_this_site = address.starts_with('/') && !address[1..].starts_with(['/', '\\']);
    let is_plain = address.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let leads_on = !address.starts_with("/login") && !address.starts_with("/logout");
    if is_of_this_site && is_plain && leads_on { address } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site() {
        for own in ["/", "/timeline?actor=RXY-CEO&since=2026-01-01T00%3A00%3A00Z", "/record/7"] {
            assert_eq!(local(own), own);
        }
        for other in [
            "",
            "x",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "/é",
            "/a\r\nb",
            "\\\\evil.example",
            "/login?next=/",
            "/logout",
            "javascript:alert(1)",
            "/ /x",
        ] {
            assert_eq!(local(other), "/", "{other:?}");
        }
    }
}
