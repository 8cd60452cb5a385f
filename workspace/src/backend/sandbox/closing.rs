//! What becomes of the execs of a sandbox when its workspace is closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::bracket::Bracket;
use crate::exec::{ExecError, ExecId, Result, Signal};

/// How long a killed exec has to be gone, and what it changed to be here.
const GONE: Duration = Duration::from_secs(10);

/// What becomes of the commands that run in a [`Sandbox`](super::Sandbox) when its
/// workspace is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtClose {
    /// They run on. The next process that opens the workspace finds them by their
    /// ids, with what they said meanwhile, and what they change comes to it. So a
    /// host may be started anew in the middle of a long command.
    #[default]
    RunOn,
    /// They are asked to end with TERM, and killed after this time. What they
    /// changed is brought here before the workspace is closed.
    End {
        /// From TERM to KILL.
        grace: Duration,
    },
}

/// Why a sandbox was closed with execs that were to end.
#[derive(Debug, thiserror::Error)]
#[error(
    "of the execs that were to end, {} may run on: open the workspace again to see to them",
    list(.running)
)]
pub struct NotEnded {
    /// Those of which the end is not known, or not all that they changed is here.
    pub running: Vec<ExecId>,
    /// The first failure.
    #[source]
    pub source: Option<ExecError>,
}

fn list(ids: &[ExecId]) -> String {
    let ids: Vec<&str> = ids.iter().map(ExecId::as_str).collect();
    ids.join(", ")
}

/// Ends all execs that are not known to have ended, and brings here what they changed.
pub(super) async fn end_all(
    bracket: &Arc<Bracket>,
    handle: &Handle,
    grace: Duration,
) -> Result<(), NotEnded> {
    let ending: Vec<_> = bracket
        .pending()
        .into_iter()
        .map(|id| handle.spawn(end(Arc::clone(bracket), handle.clone(), id, grace)))
        .collect();
    let mut first = None;
    for ending in ending {
        if let Ok(Err(error)) = ending.await {
            first.get_or_insert(error);
        }
    }
    let running = bracket.pending();
    if running.is_empty() {
        return Ok(());
    }
    Err(NotEnded {
        running,
        source: first,
    })
}

/// Ends one. An exec that is gone has ended.
async fn end(bracket: Arc<Bracket>, handle: Handle, id: ExecId, grace: Duration) -> Result<()> {
    signal(&bracket, &id, Signal::TERM).await?;
    let mut exit = tokio::time::timeout(grace, bracket.exit(&id)).await;
    if exit.is_err() {
        signal(&bracket, &id, Signal::KILL).await?;
        exit = tokio::time::timeout(GONE, bracket.exit(&id)).await;
    }
    exit.unwrap_or_else(|_| Err(ExecError::Running(id.clone())))?;
    let pulled = tokio::time::timeout(GONE, bracket.pull(&handle, &id)).await;
    pulled.map_err(|_| ExecError::Unreachable("the daemon does not come to an end".into()))
}

async fn signal(bracket: &Bracket, id: &ExecId, signal: Signal) -> Result<()> {
    match bracket.kill(id, signal).await {
        Err(ExecError::Ended(_) | ExecError::Unknown { .. } | ExecError::Lost { .. }) => Ok(()),
        signalled => signalled,
    }
}
