//! `ledgerd mcp`: the tools over standard input and output, for a client that starts the program itself.

use crate::command::{Exit, Failure};
use crate::config::Config;
use crate::mcp::sources::Sources;
use crate::mcp::tools::LedgerTools;
use crate::telemetry;
use rmcp::ServiceExt as _;
use rmcp::transport::stdio;

/// Answers until the client closes standard input. The log goes to standard error.
pub(crate) async fn run(config: &Config) -> Result<(), Failure> {
    telemetry::start(&config.log).map_err(|why| Failure::new(Exit::Configuration, why))?;
    let tools = LedgerTools::new(Sources::new(config)?);
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(
            Exit::Failed,
            format!("standard input: no client spoke MCP there: {why}; docs/console.md shows how one is set up"),
        )
    };
    let serving = tools.serve(stdio()).await.map_err(|error| failed(&error))?;
    serving.waiting().await.map_err(|error| failed(&error))?;
    Ok(())
}
