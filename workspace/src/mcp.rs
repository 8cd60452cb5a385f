//! The tools for agents, served over the Model Context Protocol.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    Implementation, ListToolsResult, PaginatedRequestParams, ResourceContents, ServerCapabilities,
    ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::{ServerHandler, ServiceExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::tools::{Answer, Media, Spec, ToolError, Tools};

/// What a client is told beside the tools.
const INSTRUCTIONS: &str = "A workspace: a filesystem of its own. Paths of all tools are paths in \
    it, from its root /. Commands of exec run with it as their working directory, where the same \
    files are; CAIRN_WORKSPACE says where that is.";

/// Why serving ended before its client did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// The client did not begin as the protocol wants it.
    #[error("the client did not begin a session: {0}")]
    Begin(String),
    /// The session broke.
    #[error("the session broke: {0}")]
    Session(String),
}

/// Serves tools on the standard input and output of this process, until the
/// client closes them. It needs a tokio runtime with all its drivers.
///
/// # Errors
///
/// [`McpError`].
///
/// # Cancel safety
///
/// Dropping it ends the session, and commands that run in it.
pub async fn serve_stdio(tools: Tools) -> Result<(), McpError> {
    let (read, write) = rmcp::transport::stdio();
    serve(tools, read, write).await
}

/// The same over any two streams of bytes.
///
/// # Errors
///
/// [`McpError`].
///
/// # Cancel safety
///
/// As that of [`serve_stdio`].
pub async fn serve<R, W>(tools: Tools, read: R, write: W) -> Result<(), McpError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let server = Server { tools };
    let session = server.serve((read, write)).await;
    let session = session.map_err(|error| McpError::Begin(error.to_string()))?;
    let ended = session.waiting().await;
    ended.map_err(|error| McpError::Session(error.to_string()))?;
    Ok(())
}

#[derive(Clone, Debug)]
struct Server {
    tools: Tools,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("cairn", env!("CARGO_PKG_VERSION"));
        info.instructions = Some(INSTRUCTIONS.into());
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = self.tools.list().into_iter().map(tool).collect();
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let input = Value::Object(request.arguments.unwrap_or_default());
        let called = tokio::select! {
            called = self.tools.call(&request.name, input) => called,
            () = context.ct.cancelled() => {
                return Ok(failed("the call was cancelled").into());
            }
        };
        let result = match called {
            Ok(answer) => done(answer),
            Err(ToolError::UnknownTool { name, known }) => {
                let message = format!("there is no tool {name:?}; there are {known}");
                return Err(ErrorData::invalid_params(message, None));
            }
            Err(error) => failed(&error.report()),
        };
        Ok(result.into())
    }
}

fn tool(spec: Spec) -> Tool {
    let schema = match spec.schema {
        Value::Object(schema) => schema,
        _ => serde_json::Map::new(),
    };
    let mut tool = Tool::new(spec.name, spec.description, Arc::new(schema));
    tool.annotations = Some(ToolAnnotations::new().read_only(spec.read_only));
    tool
}

fn done(answer: Answer) -> CallToolResult {
    let mut content = vec![ContentBlock::text(answer.text)];
    content.extend(answer.media.as_ref().map(media));
    let mut result = CallToolResult::success(content);
    result.structured_content = Some(answer.value);
    result
}

fn failed(message: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(message)])
}

fn media(media: &Media) -> ContentBlock {
    let data = BASE64_STANDARD.encode(&media.data);
    if media.mime.starts_with("image/") {
        return ContentBlock::image(data, media.mime);
    }
    let contents = ResourceContents::blob(data, "cairn:///document").with_mime_type(media.mime);
    ContentBlock::resource(contents)
}
