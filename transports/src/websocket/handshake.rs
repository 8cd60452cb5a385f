//! From HTTP/1.1 to WebSocket.

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

/// Where something listens, and the subprotocol that is spoken there.
#[derive(Debug)]
pub(crate) struct Path {
    /// As in the request.
    pub(crate) at: &'static str,
    subprotocol: &'static str,
    /// What who asks for another is told.
    other: &'static str,
}

/// Where hubs listen.
pub(crate) const SYNC: Path = Path {
    at: "/sync",
    subprotocol: "cairn.v1",
    other: "the subprotocol is cairn.v1\n",
};

/// Where hosts and daemons listen for each other.
pub(crate) const EXEC: Path = Path {
    at: "/exec",
    subprotocol: "cairn-exec.v1",
    other: "the subprotocol is cairn-exec.v1\n",
};

/// Longest head of an answer, in bytes. It is the least that hyper takes.
const HEAD_MAX: usize = 8192;

/// Whether a request asks for what [`accept`] gives.
pub(crate) fn wants_websocket(request: &Request<Incoming>) -> bool {
    request.method() == Method::GET && has_token(request.headers(), &UPGRADE, "websocket")
}

/// Whether a header that is a list has a value.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// The answer to a client that wants a WebSocket.
///
/// # Errors
///
/// What the request lacks, and the status that says so.
pub(crate) fn accept(
    request: &Request<Incoming>,
    path: &Path,
) -> Result<HeaderMap, (StatusCode, &'static str)> {
    let headers = request.headers();
    if headers
        .get(SEC_WEBSOCKET_VERSION)
        .map(HeaderValue::as_bytes)
        != Some(b"13")
    {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "WebSocket version 13 is spoken\n",
        ));
    }
    if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, path.subprotocol) {
        return Err((StatusCode::BAD_REQUEST, path.other));
    }
    let accept = headers
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok())
        .ok_or((StatusCode::BAD_REQUEST, "a WebSocket needs a key\n"))?;
    let mut answer = HeaderMap::new();
    answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    answer.insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(path.subprotocol),
    );
    Ok(answer)
}

/// Why a server gives no WebSocket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HandshakeError {
    /// It does not speak HTTP, or the connection broke.
    #[error("it does not answer as a web server does")]
    Http(#[from] hyper::Error),
    /// It answered otherwise.
    #[error("it answers {0}")]
    Status(StatusCode),
    /// It speaks another protocol, or did not read the request.
    #[error("it speaks another protocol")]
    Protocol,
    /// The host's name cannot be in a request.
    #[error("its name cannot be sent")]
    Host(#[from] hyper::http::Error),
}

/// Asks for a WebSocket; what comes back is the stream behind the handshake.
///
/// # Errors
///
/// [`HandshakeError`].
///
/// # Cancel safety
///
/// Dropping it ends the connection.
pub(crate) async fn connect<S>(
    stream: S,
    host: &str,
    path: &Path,
) -> Result<Upgraded, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut requests, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    // It ends with the request, or hands the stream over.
    let connection = tokio::spawn(connection.with_upgrades());
    let _guard = AbortOnDrop(connection.abort_handle());
    let key = generate_key();
    let request = Request::get(path.at)
        .header(HOST, host)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_PROTOCOL, path.subprotocol)
        .body(Empty::<Bytes>::new())?;
    let answer = requests.send_request(request).await?;
    check(&answer, &key, path)?;
    Ok(hyper::upgrade::on(answer).await?)
}

fn check(answer: &Response<Incoming>, key: &str, path: &Path) -> Result<(), HandshakeError> {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(HandshakeError::Status(answer.status()));
    }
    let says = |name: &HeaderName, value: &str| {
        let header = answer.headers().get(name);
        header.is_some_and(|header| header.as_bytes() == value.as_bytes())
    };
    let agreed = says(&SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
        && says(&SEC_WEBSOCKET_PROTOCOL, path.subprotocol);
    agreed.then_some(()).ok_or(HandshakeError::Protocol)
}

/// Ends a task with what waits for it.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
