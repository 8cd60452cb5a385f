//! Waiting for sync: as long as it takes while it gets on, and not for ever.

use std::sync::Arc;
use std::time::Duration;

use cairn_engine::Upstream;
use cairn_protocol::Cursor;
use cairn_protocol::session::Event;
use cairn_protocol::wire;
use cairn_transports::{Client, ClientEvent, State};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::remote::{Code, Fault};

/// How long nothing may come or go before a wait is over.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether something has.
const LOOK: Duration = Duration::from_millis(500);

/// Waits for something of a session, while the session gets on.
pub(super) async fn paced<T>(client: &Client, wait: impl Future<Output = T>) -> Result<T, Fault> {
    let moved = || {
        let counters = client.counters();
        (counters.bytes_received, counters.bytes_sent)
    };
    let (mut last, mut since) = (moved(), Instant::now());
    tokio::pin!(wait);
    loop {
        if let Ok(done) = tokio::time::timeout(LOOK, &mut wait).await {
            return Ok(done);
        }
        let now = moved();
        // What keeps a session up moves bytes as well, but not without one.
        let connected = matches!(client.state(), State::Connected);
        if now != last && connected {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() >= PATIENCE {
            return Err(late(client));
        }
    }
}

fn late(client: &Client) -> Fault {
    let why = match client.state() {
        State::Connected => "the session makes no progress".to_owned(),
        State::Connecting => "no host is connected for sync".to_owned(),
        State::Waiting { why } | State::Over { why } => format!("there is no session: {why}"),
    };
    Fault::new(Code::NOT_IN_STEP, &why)
}

/// Waits until the host does not take what is pushed, and will not in a moment.
pub(super) async fn not_taken(events: &mut Receiver<ClientEvent>) -> wire::Code {
    loop {
        match events.recv().await {
            Ok(ClientEvent::Session(Event::NotPushed {
                code, retry_after, ..
            })) if retry_after.is_none() || code == wire::Code::QUOTA => return code,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Waits until the replica is at a commit of the hub, or after it.
pub(super) async fn reach(
    client: &Client,
    store: &Arc<Upstream>,
    wanted: Cursor,
) -> Result<(), Fault> {
    let mut events = client.events();
    loop {
        let look = Arc::clone(store);
        let at = tokio::task::spawn_blocking(move || look.cursor()).await;
        let failed = |error: &dyn std::fmt::Display| {
            Fault::new(Code::NOT_IN_STEP, &format!("the replica failed: {error}"))
        };
        let at = at.map_err(|error| failed(&error))?;
        let at = at.map_err(|error| failed(&error))?;
        if at.is_some_and(|at| at.epoch == wanted.epoch && at.seq >= wanted.seq) {
            return Ok(());
        }
        let moved = async {
            loop {
                match events.recv().await {
                    Ok(ClientEvent::Session(Event::CutApplied { .. } | Event::Live { .. }))
                    | Err(RecvError::Lagged(_)) => return true,
                    Ok(ClientEvent::State(State::Over { .. })) | Err(RecvError::Closed) => {
                        return false;
                    }
                    Ok(_) => {}
                }
            }
        };
        if !paced(client, moved).await? {
            return Err(late(client));
        }
    }
}
