//! The HTTP client that rooms ask others with: it trusts what the system trusts, and follows no redirect.

use reqwest::redirect::Policy;
use std::error::Error;

/// A client. Its callers bound the time; connections stay open for the next request.
///
/// # Errors
/// Why the system's certificates cannot be used.
pub fn client() -> Result<reqwest::Client, String> {
    // The client finds a TLS provider here, or panics. Where there is one already, it is this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let agent = concat!("ledgerd/", env!("CARGO_PKG_VERSION"));
    let client = reqwest::Client::builder().user_agent(agent).no_proxy().redirect(Policy::none()).build();
    client.map_err(|error| with_sources(&error))
}

/// reqwest tells the cause of an error only by its sources.
pub fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
