//! Who is let in: tokens for programs, sessions for people, and without tokens everybody on this machine.

use crate::console::failed_logins::FailedLogins;
use crate::console::sessions::Sessions;
use crate::console::visitor::Visitor;
use crate::http::console_token::{ConsoleToken, ConsoleTokens};
use axum::http::{HeaderMap, header};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};
use parking_lot::RwLock;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The decisions about access.
#[derive(Debug)]
pub(crate) struct Access {
    tokens: RwLock<Arc<ConsoleTokens>>,
    /// Where the console is served.
    address: SocketAddr,
    sessions: Sessions,
    failed: FailedLogins,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No token came, and no session's cookie.
    Unknown,
    WrongToken,
    TooManyFailures,
    /// The system gives no randomness for a session.
    NoRandomness,
}

const SESSION_COOKIE: &str = "ledgerd_session";

impl Access {
    pub(crate) fn new(tokens: ConsoleTokens, address: SocketAddr) -> Self {
        let tokens = RwLock::new(Arc::new(tokens));
        Self { tokens, address, sessions: Sessions::default(), failed: FailedLogins::default() }
    }

    /// Replaces the tokens. Sessions of those that are gone are void from now on.
    pub(crate) fn set_tokens(&self, tokens: ConsoleTokens) -> Result<(), String> {
        if tokens.is_empty() && !self.address.ip().to_canonical().is_loopback() {
            return Err(format!("console.tokens lists nobody, and the console is served at {}", self.address));
        }
        *self.tokens.write() = Arc::new(tokens);
        Ok(())
    }

    /// Whether everybody on this machine reads, because no token is listed.
    pub(crate) fn is_open(&self) -> bool {
        self.tokens.read().is_empty()
    }

    /// Whoever a request with these headers comes from.
    pub(crate) fn visitor(&self, headers: &HeaderMap, address: IpAddr) -> Result<Visitor, Refusal> {
        let tokens = self.tokens.read().clone();
        if tokens.is_empty() {
            return Ok(Visitor::of_this_machine());
        }
        if let Some(token) = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes())) {
            let grant = self.checked(&tokens, token, address)?.grant();
            return Ok(Visitor::program(&grant.name, grant.role));
        }
        let session = session_id(headers).and_then(|id| self.sessions.find(&id)).ok_or(Refusal::Unknown)?;
        let grant = tokens.of_hash(&session.token_sha256).ok_or(Refusal::Unknown)?.grant();
        Ok(Visitor::person(&grant.name, grant.role, session.form_key))
    }

    /// Starts a session for whoever has this token, and returns its cookie. The session that was there before ends.
    pub(crate) fn sign_in(
        &self,
        token: &str,
        headers: &HeaderMap,
        address: IpAddr,
    ) -> Result<Cookie<'static>, Refusal> {
        let tokens = self.tokens.read().clone();
        let token = self.checked(&tokens, token.as_bytes(), address)?;
        self.sign_out(headers);
        let id = self.sessions.start(*token.token_sha256()).ok_or(Refusal::NoRandomness)?;
        tracing::info!(caller = %address, "{} signed in", token.grant().name);
        Ok(cookie(id, headers))
    }

    /// Ends the session.
    pub(crate) fn sign_out(&self, headers: &HeaderMap) {
        if let Some(id) = session_id(headers) {
            self.sessions.end(&id);
        }
    }

    fn checked<'a>(
        &self,
        tokens: &'a ConsoleTokens,
        token: &[u8],
        address: IpAddr,
    ) -> Result<&'a ConsoleToken, Refusal> {
        if self.failed.are_too_many(address) {
            return Err(Refusal::TooManyFailures);
        }
        tokens.of_token(token).ok_or_else(|| {
            self.failed.note(address);
            Refusal::WrongToken
        })
    }
}

/// The cookie of a session. A browser says in `Origin` whether it came over TLS, also where a proxy ended that.
fn cookie(id: String, headers: &HeaderMap) -> Cookie<'static> {
    let came_over_tls = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    Cookie::build((SESSION_COOKIE, id))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(came_over_tls)
        .build()
}

/// The cookie that makes a browser forget its session.
pub(crate) fn forgotten() -> Cookie<'static> {
    let mut cookie = Cookie::build((SESSION_COOKIE, "")).path("/").build();
    cookie.make_removal();
    cookie
}

fn session_id(headers: &HeaderMap) -> Option<String> {
    CookieJar::from_headers(headers).get(SESSION_COOKIE).map(|cookie| cookie.value().to_owned())
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, token) = (&value[..space], value[space..].trim_ascii());
    (scheme.eq_ignore_ascii_case(b"Bearer") && !token.is_empty()).then_some(token)
}
