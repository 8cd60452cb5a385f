//! A model of a hub and its replicas: small, slow, and the one definition of
//! what is correct.
//!
//! The same [`resolve`](crate::merge::resolve) that a real hub uses works here
//! on a tree of ordered maps. Replicas edit trees of their own, push batches,
//! lose acknowledgements, and follow the hub. Whoever drives them compares the
//! trees and asks the [`Oracle`] whether an update was lost.

mod chunks;
mod end;
mod hub;
mod hub_store;
mod laws;
mod news;
mod oracle;
mod pair;
mod pipe;
mod replica;
mod replica_store;
mod reset;
mod rng;
pub mod scripts;
mod subject;
mod tree;
mod withdraw;
mod workload;
mod world;

pub use end::End;
pub use hub::{Ack, Hub, PushError};
pub use hub_store::{HubBackup, ModelHub};
pub use laws::{Touches, renamed};
pub use oracle::Oracle;
pub use pair::{Side, talk};
pub use pipe::{Pipe, Receiver, drain};
pub use replica::{EditError, ModelReplica, ReplicaSafeguards};
pub use replica_store::{BrokenClient, ModelClient};
pub use rng::Rng;
pub use subject::{Above, HubSubject, MiddleSubject, NoMiddle, ReplicaSubject, model_data};
pub use tree::{Broken, ModelTree};
pub use workload::{Do, Workload};
pub use world::{Failure, Faults, World};
