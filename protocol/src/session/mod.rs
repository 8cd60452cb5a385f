//! What two sides of a connection do with messages: the parts of a session.
//!
//! | module | owns |
//! | --- | --- |
//! | `greeting` | what two sides agree on, or why they cannot |
//! | `store` | what a session asks of its store, and what that answers |
//! | `transfer` | the hub's changes, from one cut to the next |
//! | `batch` | a replica's edits, in as many messages as they need |
//!
//! Each is a value that takes and gives messages, and refuses what a peer in its
//! right mind does not send, with the code that the peer is told.

mod batch;
mod greeting;
mod store;
mod transfer;

pub use batch::{AssemblyError, Batch, BatchAssembly, batch_digest};
pub use greeting::{Agreement, GreetingError, Offer, agree};
pub use store::{
    Admission, Applied, BatchOffer, ClientAction, ClientDone, HubAction, HubDone, Report, Store,
    StoreFailure, Wanted,
};
pub use transfer::{Incoming, Outgoing, TransferError};
