//! What became of an edit that did not simply take effect.

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::name::Name;

/// What the hub did with an edit instead of what it said. Everything that an
/// edit without an outcome says has taken effect. The order of the variants is
/// part of the format.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// Somebody else had changed the content: theirs stays, and the content of
    /// this edit is that of a new node (R1). Edits of the node that the replica
    /// has not pushed yet are of the copy (R12).
    Copied {
        /// The new node.
        copy: NodeId,
        /// The directory it is in.
        parent: NodeId,
        /// Its name there.
        name: Name,
    },
    /// The node was dead, and lives again for the sake of this edit (R2, R9).
    Revived {
        /// The node.
        node: NodeId,
    },
    /// The node stays where it is: it, or what is in it, was changed by
    /// somebody who did not know that it would be removed (R3, R5).
    Kept {
        /// The node.
        node: NodeId,
    },
    /// The name was taken, so the node got another beside it (R4, R8).
    Renamed {
        /// The node.
        node: NodeId,
        /// The directory it is in.
        parent: NodeId,
        /// Its name there.
        name: Name,
    },
    /// Somebody else had made the same: the node never came to be, and `to`
    /// stands for it (R4).
    Alias {
        /// The node of this edit.
        from: NodeId,
        /// The node that is there.
        to: NodeId,
    },
    /// The edit had no effect.
    Refused {
        /// Why.
        why: Refusal,
    },
}

/// Why an edit had no effect. The order of the variants is part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Refusal {
    /// Somebody else had moved the node first (R6).
    Moved,
    /// The directory would have been inside of itself (R7).
    Cycle,
    /// The node is dead, and there is no content at stake.
    Dead,
    /// The hub has never heard of a node that the edit names.
    Unknown,
}
