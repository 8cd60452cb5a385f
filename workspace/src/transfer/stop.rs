//! The wish of the person that a transfer ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::{Failure, Result};

use super::TransferError;

/// Exit code after a second signal: 128 and the number of SIGINT, as shells have it.
pub(crate) const EXIT_NOW: i32 = 130;

/// Whether to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Stops at the first signal that asks a program to end; the second ends it
    /// at once, wherever it is. SIGHUP stays as it is: under `nohup` it is ignored.
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag still down.
            flag::register_conditional_shutdown(signal, EXIT_NOW, Arc::clone(&stop.0))
                .and_then(|_| flag::register(signal, Arc::clone(&stop.0)))
                .map_err(Failure::io("cannot watch for signals"))?;
        }
        Ok(stop)
    }

    /// Fails when it is time to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            Err(TransferError::Interrupted.into())
        } else {
            Ok(())
        }
    }
}
