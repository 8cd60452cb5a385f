//! Requests on the TCP port: `/sync`, which becomes a WebSocket, `/health` and
//! `/metrics`. A connection is for one request.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use super::accept::{Shared, serve as serve_session};
use super::registry::Carrier;
use super::{GREETING, metrics};
use crate::websocket;

/// Longest head of a request, in bytes. It is the least that hyper takes.
const HEAD_MAX: usize = 8192;

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
    let service = service_fn(|request| {
        let answer = if allowed {
            route(request, &stranger, &shared)
        } else {
            text(
                StatusCode::FORBIDDEN,
                "this hub takes secure connections only: wss://\n",
            )
        };
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(GREETING)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A peer that takes its time to read an answer is cut off.
    match tokio::time::timeout(2 * GREETING, connection).await {
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
        (&Method::GET, websocket::PATH) if websocket::wants_websocket(&request) => {
            upgrade(request, stranger, shared)
        }
        (&Method::GET, websocket::PATH) => {
            text(StatusCode::UPGRADE_REQUIRED, "this is for WebSocket\n")
        }
        (&Method::GET, "/health") => typed("application/json", metrics::health(&shared.registry)),
        (&Method::GET, "/metrics") => {
            typed("text/plain; version=0.0.4", metrics::text(&shared.registry))
        }
        (_, websocket::PATH | "/health" | "/metrics") => {
            text(StatusCode::METHOD_NOT_ALLOWED, "only GET is known here\n")
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /sync, /health and /metrics\n",
        ),
    }
}

/// Makes a WebSocket of the connection, and a session of that.
fn upgrade(
    mut request: Request<Incoming>,
    stranger: &Mutex<Option<OwnedSemaphorePermit>>,
    shared: &Arc<Shared>,
) -> Answer {
    let headers = match websocket::accept(&request) {
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
