//! The guards before every address: who is let in, from which sites, and how refusals are told.

use crate::console::access::Refusal;
use crate::console::fault::{Fault, PROBLEM_TYPE, Problem};
use crate::console::site::Shared;
use crate::console::visitor::{VISITOR, Visitor};
use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::{Authority, PathAndQuery, Uri};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use bounded_listener::Caller;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::net::IpAddr;

/// A longer address is refused; links of the console are shorter.
const ADDRESS_BYTES_MAX: usize = 8 * 1024;

/// Before every address: what no browser of an honest visitor sends.
pub(crate) async fn everything(State(site): State<Shared>, request: Request, next: Next) -> Response {
    let refused = if request.uri().path_and_query().is_some_and(|it| it.as_str().len() > ADDRESS_BYTES_MAX) {
        let why = format!("an address has at most {ADDRESS_BYTES_MAX} bytes");
        Some(Fault::Request { status: StatusCode::URI_TOO_LONG, why })
    } else if site.access.is_open() && !is_for_this_machine(&request) {
        Some(Fault::Misdirected(
            "console.tokens lists nobody, so the console answers this machine alone: ask for 127.0.0.1 or localhost, \
             or list who is let in",
        ))
    } else if !request.method().is_safe() && is_of_another_site(request.headers()) {
        Some(Fault::Forbidden(
            "the request comes from another site; behind a proxy, let it pass on the header Host as it came",
        ))
    } else {
        None
    };
    match refused {
        Some(fault) if is_of_a_program(&request) => Problem(fault).into_response(),
        Some(fault) => fault.into_response(),
        None => next.run(request).await,
    }
}

fn is_of_a_program(request: &Request) -> bool {
    request.uri().path().starts_with("/api/")
}

/// Whether the request came for a loopback name, and over no proxy. A page of another site can make its own name lead to
/// this machine, and would then read what is served here; the name in `Host` is still its own.
fn is_for_this_machine(request: &Request) -> bool {
    let is_proxied = ["forwarded", "x-forwarded-for", "x-forwarded-host"];
    let mut hosts = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("")).peekable();
    let authority = request.uri().authority().map(Authority::as_str);
    !is_proxied.iter().any(|name| request.headers().contains_key(*name))
        && hosts.peek().is_some()
        && hosts.all(is_loopback_name)
        && authority.is_none_or(is_loopback_name)
}

fn is_loopback_name(host: &str) -> bool {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(name, _)| name);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether a browser says that another site has caused the request. Other programs say nothing of the kind.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let (origin, host) = (origin.to_str().unwrap_or(""), headers.get(header::HOST).and_then(|host| host.to_str().ok()));
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    of_origin.is_none() || of_origin != host
}

/// Before the pages: whoever is not known signs in first.
pub(crate) async fn pages(
    State(site): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match site.access.visitor(request.headers(), caller.address()) {
        Ok(visitor) => served(visitor, request, next).await,
        Err(Refusal::Unknown) => sign_in_first(request.uri()).into_response(),
        Err(refusal) => Fault::from(refusal).into_response(),
    }
}

/// To the page for signing in, which leads back to the address.
fn sign_in_first(address: &Uri) -> Redirect {
    let back = address.path_and_query().map_or("/", PathAndQuery::as_str);
    Redirect::to(&format!("/login?next={}", utf8_percent_encode(back, NON_ALPHANUMERIC)))
}

/// Before what programs ask: whoever is not known hears a problem.
pub(crate) async fn programs(
    State(site): State<Shared>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    match site.access.visitor(request.headers(), caller.address()) {
        Ok(visitor) => served(visitor, request, next).await,
        Err(refusal) => Problem(refusal.into()).into_response(),
    }
}

async fn served(visitor: Visitor, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(visitor.clone());
    VISITOR.scope(visitor, next.run(request)).await
}

/// What the framework refuses becomes a page as every other fault.
pub(crate) async fn faults_as_pages(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    match framework_fault(next.run(request).await, &method).await {
        Ok((fault, headers)) => (headers, fault).into_response(),
        Err(response) => response,
    }
}

/// The same as problems.
pub(crate) async fn faults_as_problems(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    match framework_fault(next.run(request).await, &method).await {
        Ok((fault, headers)) => (headers, Problem(fault)).into_response(),
        Err(response) => response,
    }
}

/// A sentence of the framework is not longer.
const SENTENCE_BYTES_MAX: usize = 16 * 1024;

/// The refusal in an answer of the framework, with the methods that it names; `Err`: the answer is none.
async fn framework_fault(response: Response, method: &Method) -> Result<(Fault, HeaderMap), Response> {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_told = content_type.is_some_and(|kind| kind.starts_with("text/html") || kind == PROBLEM_TYPE);
    if is_told || !(status.is_client_error() || status.is_server_error()) {
        return Err(response);
    }
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, SENTENCE_BYTES_MAX).await.unwrap_or_default();
    let mut why = String::from_utf8_lossy(&bytes).into_owned();
    if why.is_empty() {
        why = match status {
            StatusCode::METHOD_NOT_ALLOWED => format!("{method} is not answered at this address"),
            _ => status.canonical_reason().unwrap_or("it was refused").to_owned(),
        };
    }
    let allowed = parts.headers.get(header::ALLOW).cloned();
    let headers = allowed.map(|methods| (header::ALLOW, methods)).into_iter().collect();
    Ok((Fault::Request { status, why }, headers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    #[test]
    fn a_loopback_name_is_one_with_any_port() {
        for name in ["localhost", "LOCALHOST:9465", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:9465"] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost:x", "0.0.0.0"] {
            assert!(!is_loopback_name(name), "{name}");
        }
    }

    #[test]
    fn a_browser_tells_of_another_site() {
        let is_of_another = |pairs: &[(&str, &str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value")));
            is_of_another_site(&headers.collect())
        };
        let host = ("host", "ledger.example:8443");
        for own in [
            &[host][..],
            &[host, ("origin", "https://ledger.example:8443")],
            &[("host", "127.0.0.1"), ("origin", "https://ledger.example"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!is_of_another(own), "{own:?}");
        }
        for other in [
            &[host, ("origin", "https://evil.example")][..],
            &[host, ("origin", "null")],
            &[("origin", "https://evil.example")],
            &[host, ("origin", "https://ledger.example:8443"), ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "none")],
        ] {
            assert!(is_of_another(other), "{other:?}");
        }
    }
}
