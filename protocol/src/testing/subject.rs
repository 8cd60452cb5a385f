//! What a simulation runs: stores of a hub and of replicas, whoever wrote them.

use std::sync::Arc;

use super::chunks::ChunkMap;
use super::hub_store::{HubBackup, ModelHub};
use super::replica::{EditError, ReplicaSafeguards};
use super::replica_store::ModelClient;
use super::tree::ModelTree;
use super::workload::Do;
use crate::cursor::{Cursor, Epoch, Seq};
use crate::id::{NodeId, ReplicaTag};
use crate::register::NodeKind;
use crate::session::{ClientAction, ClientDone, HubAction, HubDone, Store};
use crate::wire::Start;

/// A replica that can be simulated.
pub trait ReplicaSubject: Sized {
    /// A new replica with an empty tree.
    fn create(tag: ReplicaTag) -> Self;

    /// What a session asks.
    fn store(&self) -> Arc<dyn Store<ClientAction, ClientDone>>;

    /// Where a session begins: what the replica has, its last batch, and the
    /// digest of that.
    fn start(&self) -> (Start, u64, Option<[u8; 32]>);

    /// What programs see.
    fn view(&self) -> ModelTree;

    /// What it knows of the hub, and as of when. `None` if nobody can look.
    fn confirmed(&self) -> Option<(Cursor, ModelTree)>;

    /// Does what a program does. Returns the node that ended by it, if one did.
    ///
    /// # Errors
    ///
    /// [`EditError`] when that is not possible.
    fn edit(&mut self, what: &Do) -> Result<Option<NodeId>, EditError>;

    /// The process ends without a word and begins again with what is durable.
    /// The stores that were given out are of no use any more.
    fn crash(&mut self);

    /// Whether everything was pushed and answered.
    fn is_clean(&self) -> bool;

    /// What is wrong, beyond its trees (I7).
    ///
    /// # Errors
    ///
    /// A text that says what.
    fn check(&self) -> Result<(), String>;
}

/// A hub that can be simulated.
pub trait HubSubject: Sized {
    /// Everything that a hub has.
    type Backup;

    /// A new hub with an empty tree.
    fn create(epoch: Epoch) -> Self;

    /// What a session of one connection asks.
    fn connect(&self) -> Arc<dyn Store<HubAction, HubDone>>;

    /// Its tree.
    fn view(&self) -> ModelTree;

    /// Its tree after a commit. `None` if nobody can look.
    fn view_at(&self, seq: Seq) -> Option<ModelTree>;

    /// The process ends without a word and begins again with what is durable.
    fn crash(&mut self);

    /// A copy of everything, if it can make one.
    fn backup(&self) -> Option<Self::Backup>;

    /// Becomes what it was when the copy was made.
    fn restore(&mut self, backup: Self::Backup);

    /// Forgets what ended, now that everybody whom it has seen for a long time
    /// has applied this commit. Does nothing if it cannot.
    fn forget(&mut self, applied: Seq) {
        let _ = applied;
    }
}

impl ReplicaSubject for ModelClient {
    fn create(tag: ReplicaTag) -> Self {
        Self::new(tag, ReplicaSafeguards::ALL)
    }

    fn store(&self) -> Arc<dyn Store<ClientAction, ClientDone>> {
        Arc::new(self.clone())
    }

    fn start(&self) -> (Start, u64, Option<[u8; 32]>) {
        self.start()
    }

    fn view(&self) -> ModelTree {
        self.local()
    }

    fn confirmed(&self) -> Option<(Cursor, ModelTree)> {
        let (cursor, tree) = self.confirmed();
        Some((cursor?, tree))
    }

    fn edit(&mut self, what: &Do) -> Result<Option<NodeId>, EditError> {
        let content = match what {
            Do::Create(_, content, _) | Do::Write(_, content) => Some(self.content(content)),
            _ => None,
        };
        ModelClient::edit(self, |replica| match what {
            Do::Create(place, _, meta) => {
                let made = replica.create(place, NodeKind::File, content, *meta);
                made.map(|_| None)
            }
            Do::Mkdir(place, meta) => {
                let made = replica.create(place, NodeKind::Dir, None, *meta);
                made.map(|_| None)
            }
            Do::Write(node, _) => match content {
                Some(data) => replica.write(*node, data).map(|()| None),
                None => Err(EditError),
            },
            Do::Link(node, place) => replica.link(*node, place).map(|()| None),
            Do::Unlink(place) => replica.unlink(place),
            Do::Rename(from, to) => replica.rename(from, to),
            Do::Exchange(a, b) => replica.exchange(a, b).map(|()| None),
            Do::Chmod(node, meta) => replica.set_meta(*node, *meta).map(|()| None),
        })
    }

    fn crash(&mut self) {
        ModelClient::crash(self);
    }

    fn is_clean(&self) -> bool {
        self.is_clean()
    }

    fn check(&self) -> Result<(), String> {
        match self.missing().as_slice() {
            [] => Ok(()),
            missing => Err(format!("chunks are missing (I7): {missing:?}")),
        }
    }
}

impl HubSubject for ModelHub {
    type Backup = HubBackup;

    fn create(epoch: Epoch) -> Self {
        Self::new(epoch)
    }

    fn connect(&self) -> Arc<dyn Store<HubAction, HubDone>> {
        self.connect()
    }

    fn view(&self) -> ModelTree {
        self.tree()
    }

    fn view_at(&self, seq: Seq) -> Option<ModelTree> {
        self.tree_at(seq)
    }

    fn crash(&mut self) {}

    fn backup(&self) -> Option<HubBackup> {
        Some(self.backup())
    }

    fn restore(&mut self, backup: HubBackup) {
        ModelHub::restore(self, backup);
    }

    fn forget(&mut self, applied: Seq) {
        ModelHub::forget(self, applied);
    }
}

/// The value of a file's register, as the model has it: for who compares its own
/// trees with those of the model.
pub fn model_data(content: &[u8]) -> crate::Data {
    ChunkMap::default().cut(content, super::replica_store::PIECE)
}
