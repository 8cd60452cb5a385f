//! What programs do to a tree, at random.

use bytes::Bytes;

use super::rng::Rng;
use super::tree::ModelTree;
use crate::id::NodeId;
use crate::merge::Place;
use crate::name::{Name, XattrName};
use crate::register::{Meta, NodeKind};
use crate::time::Timestamp;

/// One thing that a program does. It may turn out not to be possible.
#[derive(Clone, Debug)]
pub enum Do {
    /// Makes a file with this content.
    Create(Place, Vec<u8>, Meta),
    /// Makes a directory.
    Mkdir(Place, Meta),
    /// Gives a file this content.
    Write(NodeId, Vec<u8>),
    /// Gives a file another name.
    Link(NodeId, Place),
    /// Removes a name of something that is no directory with something in it.
    Unlink(Place),
    /// Moves what is at a place to another, in the place of what is there.
    Rename(Place, Place),
    /// Lets what is at two places change places.
    Exchange(Place, Place),
    /// Gives something attributes.
    Chmod(NodeId, Meta),
    /// Gives something an extended attribute, or takes it away.
    SetXattr(NodeId, XattrName, Option<Bytes>),
}

/// Which kinds of things programs do, and how often: a schedule that does some
/// things only finds what one that does everything hides.
#[derive(Clone, Debug)]
pub struct Workload {
    kinds: Vec<u8>,
    contents: u64,
}

impl Workload {
    /// A random one.
    pub fn new(rng: &mut Rng) -> Self {
        let mut kinds = vec![0, 2];
        for kind in 0..9 {
            kinds.extend(std::iter::repeat_n(kind, rng.below(4)));
        }
        Self { kinds, contents: 0 }
    }

    /// Programs set extended attributes, too.
    pub(super) fn add_xattrs(&mut self, aside: &mut Rng) {
        let times = 1 + aside.below(3);
        self.kinds.extend(std::iter::repeat_n(9, times));
    }

    /// Programs set none, after all.
    pub(super) fn remove_xattrs(&mut self) {
        self.kinds.retain(|kind| *kind != 9);
    }

    /// The next thing, for a program that sees this tree. `None` if there is
    /// nothing to do it with.
    pub fn next(&mut self, rng: &mut Rng, tree: &ModelTree) -> Option<Do> {
        let node = |rng: &mut Rng, kind| {
            let all = tree.live().filter(|(_, k)| *k == kind);
            let all: Vec<NodeId> = all.map(|(node, _)| node).collect();
            rng.pick(&all)
        };
        let free = |rng: &mut Rng| {
            let dir = node(rng, NodeKind::Dir).unwrap_or(NodeId::ROOT);
            let name = [&b"a"[..], b"b", b"c", b"d"][rng.below(4)];
            Some((dir, Name::new(name).ok()?))
        };
        let used = |rng: &mut Rng| {
            let all: Vec<Place> = tree.names().map(|(place, _)| place.clone()).collect();
            rng.pick(&all)
        };
        Some(match rng.pick(&self.kinds)? {
            0 => Do::Create(free(rng)?, self.content(rng), meta(rng)),
            1 => Do::Mkdir(free(rng)?, meta(rng)),
            2 => Do::Write(node(rng, NodeKind::File)?, self.content(rng)),
            3 => Do::Link(node(rng, NodeKind::File)?, free(rng)?),
            4 => Do::Unlink(used(rng)?),
            5 => Do::Rename(used(rng)?, free(rng)?),
            6 => {
                // Directories into directories, where circles come from.
                let dir = node(rng, NodeKind::Dir)?;
                let from = tree.names().find(|(_, node)| *node == dir)?.0.clone();
                Do::Rename(from, free(rng)?)
            }
            7 => Do::Exchange(used(rng)?, used(rng)?),
            9 => {
                let all: Vec<_> = tree.live().map(|(node, _)| node).collect();
                let name = [&b"user.a"[..], b"user.b"][rng.below(2)];
                // Few values, so that two set the same.
                let value = [&b"1"[..], b"22", b""][rng.below(3)];
                let value = (!rng.once_in(3)).then(|| Bytes::from_static(value));
                Do::SetXattr(rng.pick(&all)?, XattrName::new(name).ok()?, value)
            }
            _ => {
                let all: Vec<_> = tree.live().map(|(node, _)| node).collect();
                Do::Chmod(rng.pick(&all)?, meta(rng))
            }
        })
    }

    /// A content that nothing else has. Some are of several chunks, and like each
    /// other.
    fn content(&mut self, rng: &mut Rng) -> Vec<u8> {
        self.contents += 1;
        let mut content = self.contents.to_le_bytes().to_vec();
        if rng.once_in(4) {
            let mut filler = Rng(rng.below(3) as u64);
            let words = 200 + rng.below(1_500);
            content.extend((0..words).flat_map(|_| filler.next().to_le_bytes()));
        }
        content
    }
}

fn meta(rng: &mut Rng) -> Meta {
    Meta {
        mode: [0o644, 0o600, 0o755][rng.below(3)],
        uid: u32::try_from(rng.below(3)).unwrap_or(0),
        gid: 0,
        mtime: Timestamp::EPOCH,
        btime: Timestamp::EPOCH,
    }
}
