//! A model of a hub and its replicas: small, slow, and the one definition of
//! what is correct.
//!
//! The same [`resolve`](crate::merge::resolve) that a real hub uses works here
//! on a tree of ordered maps. Replicas edit trees of their own, push batches,
//! lose acknowledgements, and follow the hub. Whoever drives them compares the
//! trees and asks the [`Oracle`] whether an update was lost.

mod hub;
mod oracle;
mod replica;
mod tree;

pub use hub::{Ack, Hub, PushError};
pub use oracle::Oracle;
pub use replica::{EditError, ModelReplica, ReplicaSafeguards};
pub use tree::{Broken, ModelTree};
