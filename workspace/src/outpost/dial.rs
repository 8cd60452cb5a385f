//! A daemon that goes to its host, where the host cannot reach it: the same
//! connections, dialled from the other side.

use std::sync::{Arc, Weak};
use std::time::Duration;

use cairn_transports::{Channel, Dialler};

use super::station::Station;
use super::{DaemonError, seat};
use crate::remote::{Fault, Greeting, Purpose, Role, greet};
use crate::sync::{SyncError, Upstream};

/// The first wait between two tries, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Keeps a connection for each purpose, for as long as the station is there. To be
/// called in a tokio runtime.
pub(super) fn start(station: &Arc<Station>, host: &Upstream) -> Result<(), DaemonError> {
    for purpose in [Purpose::Sync, Purpose::Exec] {
        let trust = host.trust(station.replica())?;
        let dialler = Dialler::new(host.parsed()?, trust).map_err(SyncError::from)?;
        tokio::spawn(keep(Arc::downgrade(station), dialler, purpose));
    }
    Ok(())
}

async fn keep(station: Weak<Station>, dialler: Dialler, purpose: Purpose) {
    let mut pause = PAUSE.0;
    while let Some(there) = station.upgrade() {
        match dialler.dial().await {
            Ok(mut channel) => match introduce(&there, &mut channel, purpose).await {
                Ok(()) => {
                    pause = PAUSE.0;
                    serve(there, channel, purpose).await;
                }
                Err(fault) => tracing::warn!(%fault, "the host does not take this daemon"),
            },
            Err(error) => tracing::debug!(%error, "no connection to the host"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn introduce(
    station: &Station,
    channel: &mut Channel,
    purpose: Purpose,
) -> Result<(), Fault> {
    let token = station.token().clone();
    let greeting = Greeting::new(Role::Daemon, purpose, token, station.card());
    let card = greet(channel, &greeting).await?;
    station.bind(card.workspace)
}

async fn serve(station: Arc<Station>, channel: Channel, purpose: Purpose) {
    match purpose {
        Purpose::Sync => {
            let over = station.arrivals().bring(channel);
            drop(station);
            let _ = over.await;
        }
        Purpose::Exec => {
            let seat = station.take_seat();
            seat::serve(station, channel, seat).await;
        }
    }
}
