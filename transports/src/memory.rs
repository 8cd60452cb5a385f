//! Connections within a process: frames go from one queue to the other.
//!
//! A hub whose workspace is also mounted has its working tree as a replica over
//! such a connection; and tests use it where the bytes are of no interest.

use crate::error::CarrierError;
use crate::link::{Lanes, Wire};

/// Carries frames between two wires until either side ends.
///
/// # Errors
///
/// None of its own; the type is that of the other carriers.
///
/// # Cancel safety
///
/// Dropping it ends both connections; frames under way are lost.
pub(crate) async fn run(left: Wire, right: Wire) -> Result<(), CarrierError> {
    let Wire {
        outgoing: left_out,
        incoming: left_in,
    } = left;
    let Wire {
        outgoing: right_out,
        incoming: right_in,
    } = right;
    let forth = async {
        while let Ok(frame) = left_out.next(Lanes::All).await {
            if !right_in.deliver(frame).await {
                break;
            }
        }
    };
    let back = async {
        while let Ok(frame) = right_out.next(Lanes::All).await {
            if !left_in.deliver(frame).await {
                break;
            }
        }
    };
    // What one side said before it ended is with the other by now.
    tokio::select! {
        () = forth => {}
        () = back => {}
    }
    Ok(())
}
