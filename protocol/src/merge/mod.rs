//! Merging: what a hub makes of the edits of a replica that did not see everything.
//!
//! [`resolve`] is a pure function of the hub's tree and a batch of edits. It
//! never fails because of what others did meanwhile: each edit takes effect, or
//! something near to it does, which is said in an [`Outcome`]; no content goes
//! that its remover had not seen. The rules R1 to R10 are in SPEC.md; the parts
//! here that keep them name them.
//!
//! | module | owns |
//! | --- | --- |
//! | `batch` | what the edits of a batch say together, and whether that makes sense |
//! | `names` | the names as the batch leaves them so far, over those of the tree |
//! | `place` | where nodes go, and which stay or live again (R2 to R9) |
//! | `values` | content and attributes (R1, R10) |
//! | `plain` | whether all of that is just what the edits say |

mod batch;
mod names;
mod place;
mod plain;
mod values;

use bytes::Bytes;

use crate::change::Entry;
use crate::cursor::Ver;
use crate::data::Data;
use crate::edit::Edit;
use crate::id::{NodeId, ReplicaTag};
use crate::name::{Name, XattrName};
use crate::outcome::{Outcome, Refusal};
use crate::register::{Meta, NodeKind};

pub use batch::BatchError;
pub use plain::is_plain;

/// A name in a directory.
pub type Place = (NodeId, Name);

/// The hub's tree, as [`resolve`] looks at it.
pub trait TreeView {
    /// Why the tree could not be read.
    type Error;

    /// What is known of a node.
    ///
    /// # Errors
    ///
    /// When the tree cannot be read; so for all methods.
    fn node(&self, node: NodeId) -> Result<Option<NodeInfo>, Self::Error>;

    /// What a name stands for.
    ///
    /// # Errors
    ///
    /// As [`Self::node`].
    fn child(&self, place: &Place) -> Result<Option<NodeId>, Self::Error>;

    /// All names of a node, none for the root and for a node that is dead.
    ///
    /// # Errors
    ///
    /// As [`Self::node`].
    fn places(&self, node: NodeId) -> Result<Vec<Place>, Self::Error>;

    /// Whether a directory has an entry that `counts`.
    ///
    /// # Errors
    ///
    /// As [`Self::node`].
    fn has_child(
        &self,
        dir: NodeId,
        counts: &mut dyn FnMut(&Name) -> bool,
    ) -> Result<bool, Self::Error>;

    /// The content of a node, and its version; also of a node that is dead.
    ///
    /// # Errors
    ///
    /// As [`Self::node`].
    fn data(&self, node: NodeId) -> Result<Option<(Ver, Data)>, Self::Error>;

    /// The attributes of a node, and their version.
    ///
    /// # Errors
    ///
    /// As [`Self::node`].
    fn meta(&self, node: NodeId) -> Result<Option<(Ver, Meta)>, Self::Error>;

    /// An extended attribute of a node.
    ///
    /// # Errors
    ///
    /// As [`Self::node`].
    fn xattr(&self, node: NodeId, name: &XattrName) -> Result<Option<Bytes>, Self::Error>;

    /// The node that stands for one that never came to be ([`Outcome::Alias`]).
    ///
    /// # Errors
    ///
    /// As [`Self::node`].
    fn alias(&self, node: NodeId) -> Result<Option<NodeId>, Self::Error>;
}

/// What a tree knows of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// What it is, for ever.
    pub kind: NodeKind,
    /// Where a dead node was last; `None` while it lives.
    pub last: Option<Place>,
}

/// What a batch comes to. The entries are a set and take effect at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// The registers that change, and the nodes that begin and end.
    pub entries: Vec<Entry>,
    /// The edits, by their index in the batch, that did not simply take effect.
    pub outcomes: Vec<(usize, Outcome)>,
    /// Where the nodes that end were last.
    pub deaths: Vec<(NodeId, Place)>,
}

/// Why a batch cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError<E> {
    /// The tree could not be read.
    #[error("the tree cannot be read")]
    Tree(E),
    /// The batch contradicts itself, which no replica in its right mind sends.
    #[error(transparent)]
    Batch(BatchError),
}

/// Safeguards that a test switches off, to see that it would notice.
#[derive(Clone, Copy, Debug)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "switches that do not depend on each other"
)]
pub struct Safeguards {
    /// A removal takes effect only on the content that its author saw (R3).
    pub data_base: bool,
    /// A removal ends a node only if its author meant to (R3).
    pub was_last: bool,
    /// No directory comes to be inside of itself (R7).
    pub cycle: bool,
}

impl Safeguards {
    /// As it must be.
    pub const ALL: Self = Self {
        data_base: true,
        was_last: true,
        cycle: true,
    };
}

/// Resolves a batch of edits against the hub's tree.
///
/// `by` is the replica that made the edits; conflict names have its tag. `mint`
/// gives ids to the nodes that keep a second content.
///
/// # Errors
///
/// [`ResolveError::Batch`] when the edits contradict each other; otherwise only
/// what the tree says.
pub fn resolve<T: TreeView>(
    tree: &T,
    edits: &[Edit],
    by: ReplicaTag,
    mint: &mut dyn FnMut() -> NodeId,
) -> Result<Resolution, ResolveError<T::Error>> {
    resolve_with(Safeguards::ALL, tree, edits, by, mint)
}

/// [`resolve`] without some of its safeguards, for tests of tests.
///
/// # Errors
///
/// As [`resolve`].
pub(crate) fn resolve_with<T: TreeView>(
    safe: Safeguards,
    tree: &T,
    edits: &[Edit],
    by: ReplicaTag,
    mint: &mut dyn FnMut() -> NodeId,
) -> Result<Resolution, ResolveError<T::Error>> {
    let batch = batch::Batch::read(tree, edits)?;
    let mut names = names::Names::new(tree, by);
    let mut outcomes = Vec::new();
    let mut placed = place::place(safe, &batch, &mut names, &mut outcomes)?;
    let mut resolution = Resolution {
        outcomes,
        ..Resolution::default()
    };
    values::resolve(&batch, &mut names, &mut placed, mint, &mut resolution)?;
    // Who makes an alias again was not told of it: others made it one. It comes
    // after what is said of the content, which a copy may have (R4, R12).
    for &(edit, from, to) in &batch.aliases {
        let alias = Outcome::Alias { from, to };
        resolution.outcomes.push((edit, alias));
    }
    let mut entries = Vec::new();
    for (node, kind) in placed.born {
        entries.push(Entry::Node { id: node, kind });
    }
    for (place, node) in names.changed()? {
        let (parent, name) = place;
        entries.push(Entry::Name { parent, name, node });
    }
    entries.append(&mut resolution.entries);
    for (node, _) in &placed.deaths {
        entries.push(Entry::Gone { node: *node });
    }
    resolution.deaths = placed.deaths;
    resolution.entries = entries;
    Ok(resolution)
}

fn refused(why: Refusal) -> Outcome {
    Outcome::Refused { why }
}
