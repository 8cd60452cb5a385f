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

    /// Loses the chunks of a content, as a damaged disk does, and knows it. Does
    /// nothing if it cannot.
    fn lose(&mut self, node: NodeId) {
        let _ = node;
    }

    /// What is wrong, beyond its tree.
    ///
    /// # Errors
    ///
    /// A text that says what.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Which of its two hubs a middle looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Above {
    /// The hub elsewhere.
    Upstream,
    /// Its own.
    Own,
}

/// A replica that is a hub for others, and can be simulated: its working tree
/// follows the hub above it and its own, and pushes to each what came from the
/// other.
pub trait MiddleSubject: Sized {
    /// A new one with an empty tree, and a hub of this epoch.
    fn create(tag: ReplicaTag, epoch: Epoch) -> Self;

    /// What a session of one connection to its hub asks.
    fn connect(&self) -> Arc<dyn Store<HubAction, HubDone>>;

    /// The tree of its hub.
    fn hub_view(&self) -> ModelTree;

    /// That tree after a commit. `None` if nobody can look.
    fn hub_view_at(&self, seq: Seq) -> Option<ModelTree>;

    /// What a session asks by which it follows a hub.
    fn store(&self, above: Above) -> Arc<dyn Store<ClientAction, ClientDone>>;

    /// Where such a session begins, see [`ReplicaSubject::start`].
    fn start(&self, above: Above) -> (Start, u64, Option<[u8; 32]>);

    /// What it knows of a hub, see [`ReplicaSubject::confirmed`].
    fn confirmed(&self, above: Above) -> Option<(Cursor, ModelTree)>;

    /// Whether everything was pushed to a hub and answered.
    fn is_clean(&self, above: Above) -> bool;

    /// What programs see.
    fn view(&self) -> ModelTree;

    /// Does what a program does, see [`ReplicaSubject::edit`].
    ///
    /// # Errors
    ///
    /// [`EditError`] when that is not possible.
    fn edit(&mut self, what: &Do) -> Result<Option<NodeId>, EditError>;

    /// The process ends without a word and begins again with what is durable.
    fn crash(&mut self);

    /// What is wrong, beyond its trees (I7).
    ///
    /// # Errors
    ///
    /// A text that says what.
    fn check(&self) -> Result<(), String>;
}

/// No hub is in the middle.
#[derive(Debug)]
pub enum NoMiddle {}

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
            Do::SetXattr(node, name, value) => {
                let set = replica.set_xattr(*node, name, value.clone());
                set.map(|()| None)
            }
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

    fn lose(&mut self, node: NodeId) {
        ModelHub::lose(self, node);
    }

    fn check(&self) -> Result<(), String> {
        match self.missing().as_slice() {
            [] => Ok(()),
            missing => Err(format!("chunks are missing (HUB-1): {missing:?}")),
        }
    }
}

/// The value of a file's register, as the model has it: for who compares its own
/// trees with those of the model.
pub fn model_data(content: &[u8]) -> crate::Data {
    ChunkMap::default().cut(content, super::replica_store::PIECE)
}

impl MiddleSubject for NoMiddle {
    fn create(_: ReplicaTag, _: Epoch) -> Self {
        unreachable!("a world without hubs in the middle makes none")
    }

    fn connect(&self) -> Arc<dyn Store<HubAction, HubDone>> {
        match *self {}
    }

    fn hub_view(&self) -> ModelTree {
        match *self {}
    }

    fn hub_view_at(&self, _: Seq) -> Option<ModelTree> {
        match *self {}
    }

    fn store(&self, _: Above) -> Arc<dyn Store<ClientAction, ClientDone>> {
        match *self {}
    }

    fn start(&self, _: Above) -> (Start, u64, Option<[u8; 32]>) {
        match *self {}
    }

    fn confirmed(&self, _: Above) -> Option<(Cursor, ModelTree)> {
        match *self {}
    }

    fn is_clean(&self, _: Above) -> bool {
        match *self {}
    }

    fn view(&self) -> ModelTree {
        match *self {}
    }

    fn edit(&mut self, _: &Do) -> Result<Option<NodeId>, EditError> {
        match *self {}
    }

    fn crash(&mut self) {
        match *self {}
    }

    fn check(&self) -> Result<(), String> {
        match *self {}
    }
}
