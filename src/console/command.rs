//! `ledgerd console`: serves the pages and the API until it is told to stop.

use crate::command::{Exit, Failure, connect, output, rules};
use crate::config::Config;
use crate::console::access::Access;
use crate::console::live::Live;
use crate::console::operator::Operator;
use crate::console::router::router;
use crate::console::site::Site;
use crate::log::queries::LogStore;
use crate::mcp::http::service;
use crate::mcp::sources::Sources;
use crate::query::Reader;
use crate::query::stream::StreamView;
use crate::systemd::{self, Signal};
use crate::telemetry;
use bounded_listener::Limits;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Debug, clap::Args)]
pub(crate) struct ConsoleArguments {
    /// Write a page that checks proofs offline to this file, and serve nothing; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) export_verifier: Option<PathBuf>,
}

/// Questions that are being answered at a time.
const CONNECTIONS_MAX: usize = 8;
/// The same of questions about proofs.
const LOG_CONNECTIONS_MAX: usize = 4;

pub(crate) async fn run(config: &Config, _arguments: &ConsoleArguments, file: Option<&Path>) -> Result<(), Failure> {
    telemetry::start(&config.log).map_err(|why| Failure::new(Exit::Configuration, why))?;
    let mut signals = systemd::signals().map_err(|error| Failure::new(Exit::Failed, error))?;
    let address = config.console.listen;
    let listener = bounded_listener::bind(address).map_err(|error| {
        Failure::new(Exit::Configuration, format!("console.listen: cannot listen on {address}: {error}"))
    })?;
    let stop = CancellationToken::new();
    let rules = rules::load(config).map_err(|why| Failure::new(Exit::Configuration, why))?;
    let site = Arc::new(Site {
        reader: Reader(connect::reader(config, CONNECTIONS_MAX)?),
        log: LogStore(connect::reader(config, LOG_CONNECTIONS_MAX)?),
        operator: Operator::new(config)?,
        access: Access::new(config.console.tokens.clone(), address),
        live: Live::new(stop.clone()),
        config: config.clone(),
        agents: rules.agents,
        stream: StreamView::new(config),
    });
    let live = site.clone();
    tokio::spawn(async move { live.live.run(&live.reader).await });
    if !address.ip().to_canonical().is_loopback() {
        tracing::warn!("the console is served at {address} without TLS: let a proxy with TLS stand before it");
    }
    let mcp = service(Sources::new(config)?, stop.clone());
    let limits = Limits {
        connections_max: config.http.connections_max,
        connections_per_address_max: config.http.connections_per_address_max,
        headers_timeout: config.http.headers_timeout,
    };
    let serving = bounded_listener::serve(listener, router(site.clone(), mcp), limits, stop.clone());
    tokio::pin!(serving);
    output::line(format_args!("the console is at http://{address}/"));
    systemd::ready(&format!("serves http://{address}/"));
    loop {
        tokio::select! {
            ended = &mut serving => return ended.map_err(|error| Failure::new(Exit::Failed, error)),
            signal = signals.recv() => match signal {
                Some(Signal::Reload) => reload(&site, file),
                _ => stop.cancel(),
            },
        }
    }
}

/// Reads the tokens again. What cannot be used changes nothing.
fn reload(site: &Site, file: Option<&Path>) {
    systemd::reloading();
    let config = Config::load(file).map_err(|error| error.to_string());
    match config.and_then(|config| site.access.set_tokens(config.console.tokens)) {
        Ok(()) => tracing::info!("reloaded console.tokens"),
        Err(why) => tracing::error!("reload failed, what was in force stays in force: {why}"),
    }
    systemd::ready("serving");
}
