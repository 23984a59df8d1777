//! `ledgerd console`: serves the pages and the API until it is told to stop.

use crate::command::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::console::live::Live;
use crate::console::router::router;
use crate::console::site::Site;
use crate::query::Reader;
use crate::systemd::{self, Signal};
use crate::telemetry;
use bounded_listener::Limits;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Debug, clap::Args)]
pub(crate) struct ConsoleArguments {}

/// Questions that are being answered at a time.
const CONNECTIONS_MAX: usize = 8;

pub(crate) async fn run(config: &Config, _arguments: &ConsoleArguments) -> Result<(), Failure> {
    telemetry::start(&config.log).map_err(|why| Failure::new(Exit::Configuration, why))?;
    let mut signals = systemd::signals().map_err(|error| Failure::new(Exit::Failed, error))?;
    let address = config.console.listen;
    let listener = bounded_listener::bind(address).map_err(|error| {
        Failure::new(Exit::Configuration, format!("console.listen: cannot listen on {address}: {error}"))
    })?;
    let stop = CancellationToken::new();
    let site =
        Arc::new(Site { reader: Reader(connect::reader(config, CONNECTIONS_MAX)?), live: Live::new(stop.clone()) });
    tokio::spawn(Live::run(site.clone()));
    let limits = Limits {
        connections_max: config.http.connections_max,
        connections_per_address_max: config.http.connections_per_address_max,
        headers_timeout: config.http.headers_timeout,
    };
    let serving = bounded_listener::serve(listener, router(site), limits, stop.clone());
    tokio::pin!(serving);
    output::line(format_args!("the console is at http://{address}/"));
    loop {
        tokio::select! {
            ended = &mut serving => return ended.map_err(|error| Failure::new(Exit::Failed, error)),
            signal = signals.recv() => if !matches!(signal, Some(Signal::Reload)) {
                stop.cancel();
            },
        }
    }
}
