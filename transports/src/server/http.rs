//! Requests on the TCP port: `/sync`, which becomes a WebSocket, `/health` and
//! `/metrics`. A connection is for one request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cairn_protocol::wire::Token;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use super::accept::{Shared, serve as serve_session};
use super::guests::Asked;
use super::registry::Carrier;
use super::{GREETING, metrics};
use crate::websocket;

/// Longest head of a request, in bytes. It is the least that hyper takes.
const HEAD_MAX: usize = 8192;

const SYNC: &str = websocket::SYNC.at;
const EXEC: &str = websocket::EXEC.at;

/// How long a request to a daemon may take, from its first byte to the last of its
/// answer: a checkpoint waits for what is edited to be with the hub.
const ANSWER: Duration = Duration::from_mins(1);

type Answer = Response<Full<Bytes>>;

/// Answers the request of a connection. `allowed` is false when it should have
/// been a secure one.
pub(super) async fn serve<S>(
    stream: S,
    allowed: bool,
    stranger: OwnedSemaphorePermit,
    shared: Arc<Shared>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // It goes with the WebSocket, if there will be one.
    let stranger = Mutex::new(Some(stranger));
    let service = service_fn(async |request| {
        let answer = if !allowed {
            text(
                StatusCode::FORBIDDEN,
                "this hub takes secure connections only: wss://\n",
            )
        } else if let Some(answer) = guest(&request, &shared).await {
            answer
        } else {
            route(request, &stranger, &shared)
        };
        Ok::<_, Infallible>(answer)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(GREETING)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A peer that takes its time to read an answer is cut off.
    let patience = if shared.guests.is_some() {
        ANSWER
    } else {
        2 * GREETING
    };
    match tokio::time::timeout(patience, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "no answer"),
        Err(_) => tracing::debug!("no answer in time"),
    }
}

fn route(
    request: Request<Incoming>,
    stranger: &Mutex<Option<OwnedSemaphorePermit>>,
    shared: &Arc<Shared>,
) -> Answer {
    let (method, path) = (request.method(), request.uri().path());
    match (method, path) {
        (&Method::GET, SYNC | EXEC) if websocket::wants_websocket(&request) => {
            upgrade(request, stranger, shared)
        }
        (&Method::GET, SYNC | EXEC) => {
            text(StatusCode::UPGRADE_REQUIRED, "this is for WebSocket\n")
        }
        (&Method::GET, "/health") => typed("application/json", metrics::health(&shared.registry)),
        (&Method::GET, "/metrics") => {
            typed("text/plain; version=0.0.4", metrics::text(&shared.registry))
        }
        (_, SYNC | EXEC | "/health" | "/metrics") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "only GET is known here\n")
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /sync, /health and /metrics\n",
        ),
    }
}

/// What the guests of the server answer.
async fn guest(request: &Request<Incoming>, shared: &Shared) -> Option<Answer> {
    const BEARER: &str = "Bearer ";
    let guests = shared.guests.as_ref()?;
    let header = request.headers().get(AUTHORIZATION);
    let header = header.and_then(|header| header.to_str().ok());
    let token = header.and_then(|header| header.strip_prefix(BEARER));
    let answer = guests.request(Asked {
        method: request.method().as_str().to_owned(),
        path: request.uri().path().to_owned(),
        token: token.and_then(|token| Token::new(token.trim().as_bytes())),
    });
    let answer = answer.await?;
    let mut response = typed(answer.kind, answer.body);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or_default();
    Some(response)
}

/// Makes a WebSocket of the connection, and a session of that.
fn upgrade(
    mut request: Request<Incoming>,
    stranger: &Mutex<Option<OwnedSemaphorePermit>>,
    shared: &Arc<Shared>,
) -> Answer {
    let exec = request.uri().path() == EXEC;
    if exec && shared.guests.is_none() {
        return text(StatusCode::NOT_FOUND, "this is a hub and no daemon\n");
    }
    let path = if exec {
        &websocket::EXEC
    } else {
        &websocket::SYNC
    };
    let headers = match websocket::accept(&request, path) {
        Ok(headers) => headers,
        Err((status, why)) => return text(status, why),
    };
    let Some(stranger) = stranger.lock().take() else {
        return text(StatusCode::BAD_REQUEST, "one WebSocket is enough\n");
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        match upgraded.await {
            Ok(stream) => {
                let stream = TokioIo::new(stream);
                let carry = |wire| websocket::run(stream, websocket::Side::Server, wire);
                if exec {
                    shared.guest(stranger, carry);
                    return;
                }
                serve_session(&shared, Carrier::WebSocket, stranger, carry).await;
            }
            Err(error) => tracing::debug!(%error, "no WebSocket"),
        }
    });
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = headers;
    answer
}

fn text(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn typed(kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::from(text));
    let kind = HeaderValue::from_static(kind);
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
