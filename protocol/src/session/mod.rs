//! What two sides of a connection do with messages: a session at each end, and
//! its parts.
//!
//! [`ClientSession`] and [`HubSession`] are pure state machines behind one trait,
//! [`Session`]: inputs with the time go in, outputs come out, and what has to be
//! done with a store leaves as an action and comes back as an answer. So a crash
//! can be placed between any two steps, and a test owns the time.
//!
//! | module | owns |
//! | --- | --- |
//! | `io` | inputs, outputs, and what a driver has to keep |
//! | `client` | a client's end |
//! | `hub` | a hub's end |
//! | `link` | what both ends have: actions under way, timers, the end |
//! | `credit` | how much may be sent before it is dealt with |
//! | `supply` | chunks on their way out |
//! | `greeting` | what two sides agree on, or why they cannot |
//! | `store` | what a session asks of its store, and what that answers |
//! | `transfer` | the hub's changes, from one cut to the next |
//! | `batch` | a replica's edits, in as many messages as they need |
//!
//! Each is a value that takes and gives messages, and refuses what a peer in its
//! right mind does not send, with the code that the peer is told.

mod batch;
mod client;
mod credit;
mod greeting;
mod hub;
mod io;
mod link;
mod store;
mod supply;
mod transfer;

pub use batch::{AssemblyError, Batch, BatchAssembly, batch_digest};
pub use client::{ClientConfig, ClientSession};
pub use greeting::{Agreement, GreetingError, Offer, agree};
pub use hub::{HubConfig, HubSession};
pub use io::{ActionId, BACKLOG_MAX, By, Command, Counters, Ended, Event, Input, Output, Session};
pub use store::{
    Admission, Applied, BatchOffer, ClientAction, ClientDone, HubAction, HubDone, Report, Store,
    StoreFailure, Wanted,
};
pub use transfer::{Incoming, Outgoing, TransferError};
