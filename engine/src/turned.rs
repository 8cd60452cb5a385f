//! Nodes of which rows became others in the transaction that is open: what that
//! means for those that are in memory. A large cut sets rows past memory, see
//! [`crate::shift`].
//!
//! What can leave memory does: who needs it waits for the shift and gets the new
//! row. What cannot, because somebody holds it, gets what its new row has. So
//! memory never has half of a cut, and what has to be remembered of a node is a
//! few bytes.

use cairn_protocol::{Name, Ver};
use rusqlite::{Connection, OptionalExtension, params};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::Result;
use crate::assign::Moved;
use crate::attr::Ino;
use crate::db::{int, uint};
use crate::node::{Body, DirBody, Node, Overlay};
use crate::observe::Invalidation;
use crate::replica::Notes;
use crate::tree::{Tree, evictable};

/// What became of one node.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turn {
    /// Entries of a directory that came, less those that went.
    pub(crate) entries: i32,
    /// Names that it got, less those that it lost; of a directory, those of
    /// directories in it.
    pub(crate) links: i32,
    /// Some name in it changed.
    pub(crate) named: bool,
    /// It has no name any more,
    pub(crate) ended: bool,
    /// and its row is gone.
    pub(crate) gone: bool,
}

/// A name that became another, for the caches above.
#[derive(Debug)]
pub(crate) struct TurnedName {
    pub(crate) parent: Ino,
    pub(crate) name: Name,
    /// What it stood for, if it stands for nothing now.
    pub(crate) removed: Option<Ino>,
}

/// See the head of the module.
#[derive(Debug, Default)]
pub(crate) struct Turned {
    pub(crate) nodes: FxHashMap<u64, Turn>,
    /// Files whose contents are others, if there are caches above.
    pub(crate) contents: Vec<Ino>,
    /// Likewise.
    pub(crate) names: Vec<TurnedName>,
    /// Nodes that have to stay in memory, for something else is set there.
    pub(crate) needed: FxHashSet<u64>,
    /// How many nodes there are more.
    pub(crate) count: i64,
}

impl Turned {
    pub(crate) fn node(&mut self, ino: Ino) -> &mut Turn {
        self.nodes.entry(ino.0).or_default()
    }

    /// Looks whether everything in memory is as it was at `seen`, and which rows
    /// are needed there that are not in `rows`.
    pub(crate) fn look(
        &self,
        tree: &Tree,
        notes: &Notes<'_>,
        seen: Ver,
        rows: &FxHashMap<u64, Node>,
        db: &Connection,
    ) -> Result<Result<Vec<Ino>, Moved>> {
        let mut missing = Vec::new();
        for (ino, turn) in &self.nodes {
            let node = tree.nodes.get(ino);
            let known = turn.gone && (node.is_some() || notes.known(Ino(*ino)));
            if known || tree.dying.contains(ino) {
                return Ok(Err(Moved));
            }
            if node.is_some_and(|node| has_moved(node, *turn, seen)) {
                return Ok(Err(Moved));
            }
            let stays = node.is_some_and(|node| self.stays(*ino, node));
            let is_needed = match (turn.ended, node) {
                // What it was is what those see who have it.
                (true, node) => !turn.gone && node.is_none(),
                (false, _) => stays,
            };
            match rows.get(ino) {
                None if is_needed => missing.push(Ino(*ino)),
                Some(row) if node.is_some_and(|node| is_used(node, row)) => {
                    return Ok(Err(Moved));
                }
                _ => {}
            }
        }
        if self.is_named(tree, seen, db)? {
            return Ok(Err(Moved));
        }
        Ok(Ok(missing))
    }

    fn stays(&self, ino: u64, node: &Node) -> bool {
        self.needed.contains(&ino) || !evictable(node)
    }

    /// Whether a program changed a name that became another, or one in a
    /// directory that ended.
    fn is_named(&self, tree: &Tree, seen: Ver, db: &Connection) -> Result<bool> {
        let sql = "SELECT ver FROM name WHERE parent = ? AND hash = ? AND name = ?";
        for (dir, key) in &tree.dirty_names {
            let Some(turn) = self.nodes.get(dir) else {
                continue;
            };
            let ver: Option<i64> = db
                .prepare_cached(sql)?
                .query_row(params![int(*dir), int(key.0), key.1.as_bytes()], |r| {
                    r.get(0)
                })
                .optional()?;
            if turn.ended || ver.is_some_and(|ver| uint(ver) > seen) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes memory what the rows are. Whether something in it was set.
    pub(crate) fn apply(
        &self,
        tree: &mut Tree,
        notes: &Notes<'_>,
        mut rows: FxHashMap<u64, Node>,
    ) -> bool {
        let mut set = false;
        for (ino, turn) in &self.nodes {
            let stays = tree.nodes.get(ino).map(|node| self.stays(*ino, node));
            match (stays, rows.remove(ino)) {
                (Some(_), _) if turn.ended => {
                    set = true;
                    end(tree, *ino, *turn);
                }
                (Some(true), Some(row)) => {
                    set = true;
                    refresh(tree, *ino, row, *turn);
                }
                (None, Some(mut row)) => {
                    row.used = tree.tick;
                    tree.nodes.add(*ino, row);
                }
                (Some(_), None | Some(_)) => forget(tree, *ino),
                (None, None) => {}
            }
        }
        tree.count = tree.count.saturating_add_signed(self.count);
        tree.evictions += 1;
        self.tell(notes);
        set
    }

    /// Lets go of what has no name and that nobody has. Whether there was any.
    pub(crate) fn reap(&self, tree: &mut Tree, notes: &Notes<'_>) -> bool {
        let mut any = false;
        for (ino, _) in self.nodes.iter().filter(|(_, turn)| turn.ended) {
            let unused = |node: &Node| node.nlink == 0 && node.holds == 0;
            if tree.nodes.get(ino).is_some_and(unused) {
                any = true;
                if !notes.known(Ino(*ino)) {
                    tree.reap(Ino(*ino));
                }
            }
        }
        any
    }

    fn tell(&self, notes: &Notes<'_>) {
        for ino in &self.contents {
            notes.tell(|| Invalidation::Content {
                ino: *ino,
                offset: 0,
                len: None,
            });
        }
        for TurnedName {
            parent,
            name,
            removed,
        } in &self.names
        {
            let (parent, name) = (*parent, name.as_bytes());
            notes.tell(|| match removed {
                Some(child) => Invalidation::Deleted {
                    parent,
                    name: name.to_vec(),
                    child: *child,
                },
                None => Invalidation::Entry {
                    parent,
                    name: name.to_vec(),
                },
            });
        }
        for ino in self.nodes.keys().map(|ino| Ino(*ino)) {
            notes.tell(|| Invalidation::Attr { ino });
        }
    }
}

/// Whether a node was changed in a way that has to be looked at.
fn has_moved(node: &Node, turn: Turn, seen: Ver) -> bool {
    if node.ver() > seen {
        return true;
    }
    let links = i64::from(node.nlink) + i64::from(turn.links);
    match &node.body {
        Body::Dir(dir) => dir
            .entries
            .checked_add_signed(turn.entries.into())
            .is_none(),
        _ => links < 0 || (links == 0) != (turn.ended || node.nlink == 0),
    }
}

/// Whether somebody uses the content of a file that becomes another.
fn is_used(node: &Node, row: &Node) -> bool {
    match &node.body {
        Body::File(file) => {
            let busy = file.data_dirty || file.sealing || file.direct.is_some();
            row.data_ver != node.data_ver && (busy || matches!(file.over, Overlay::Staging(_)))
        }
        _ => false,
    }
}

/// Drops a node that is as its row was.
fn forget(tree: &mut Tree, ino: u64) {
    if let Some(Node {
        body: Body::File(file),
        ..
    }) = tree.nodes.remove(&ino).as_ref()
    {
        tree.memory -= file.memory();
    }
}

/// Takes the last name from a node.
fn end(tree: &mut Tree, ino: u64, turn: Turn) {
    if let Some(node) = tree.nodes.get_mut(&ino) {
        node.nlink = 0;
        if let Body::Dir(dir) = &mut node.body {
            set_entries(dir, turn);
        }
    }
}

/// Counts what came and went in a directory, and forgets what was known of it.
fn set_entries(dir: &mut DirBody, turn: Turn) {
    dir.entries = dir.entries.saturating_add_signed(turn.entries.into());
    if turn.named {
        dir.children.retain(|_, dirent| dirent.state.pinned());
        (dir.complete, dir.window) = (false, None);
    }
}

/// Gives a node what its row has, but what is of memory alone.
fn refresh(tree: &mut Tree, ino: u64, row: Node, turn: Turn) {
    let Some(node) = tree.nodes.get_mut(&ino) else {
        return;
    };
    let is_new = row.data_ver != node.data_ver;
    if is_new && matches!(node.body, Body::File(_)) {
        tree.drop_overlay(Ino(ino));
    }
    let Some(node) = tree.nodes.get_mut(&ino) else {
        return;
    };
    let atime = node.times.atime;
    (node.perm, node.uid, node.gid) = (row.perm, row.uid, row.gid);
    (node.times, node.xattrs) = (row.times, row.xattrs);
    node.times.atime = atime;
    (node.meta_ver, node.data_ver) = (row.meta_ver, row.data_ver);
    node.nlink = node.nlink.saturating_add_signed(turn.links);
    match (&mut node.body, row.body) {
        (Body::File(file), Body::File(new)) if is_new => {
            (file.size, file.base) = (new.size, new.base);
            file.generation += 1;
        }
        (Body::Symlink(target), Body::Symlink(new)) => *target = new,
        (Body::Dir(dir), Body::Dir(_)) => {
            set_entries(dir, turn);
        }
        _ => {}
    }
}
