//! The tools over streamable HTTP. Each request stands alone: there are no sessions.

use crate::mcp::sources::Sources;
use crate::mcp::tools::LedgerTools;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// A question is a few lines.
const QUESTION_BYTES_MAX: usize = 64 * 1024;

pub(crate) type McpService = StreamableHttpService<LedgerTools, NeverSessionManager>;

/// The service for one address. `stop` ends answers that are on their way.
pub(crate) fn service(sources: Sources, stop: CancellationToken) -> McpService {
    let tools = LedgerTools::new(sources);
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_max_request_body_bytes(QUESTION_BYTES_MAX)
        .with_cancellation_token(stop)
        // The console's guard looks at Host and Origin before every address.
        .disable_allowed_hosts();
    StreamableHttpService::new(move || Ok(tools.clone()), Arc::new(NeverSessionManager::default()), config)
}
