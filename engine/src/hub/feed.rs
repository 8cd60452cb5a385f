//! What commits changed, coalesced by register, and who may follow from where.
//!
//! A commit keeps the *keys* of the registers that it set, and the registers
//! have their versions: a key counts only while its register is of that commit.
//! So a register that changes often is told once, and a page of the log needs
//! no snapshot: what changes meanwhile comes later, in the commit that did it.

use std::collections::BTreeMap;

use cairn_protocol::session::{HubDone, Report};
use cairn_protocol::wire::{Start, Why};
use cairn_protocol::{
    Chain, Change, Cursor, Entry, Name, NodeId, Outcome, ReplicaTag, Scope, Seq, XattrName,
};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::Hub;
use super::state::State;
use crate::Result;
use crate::db::{corrupt, int, uint};
use crate::shared::{Ahead, HUB, Record, Shared};

/// What a commit did to a node: bits of [`Key::Node`].
const BORN: u8 = 1;
const DATA: u8 = 2;
const META: u8 = 4;
const GONE: u8 = 8;
/// The node lives again: who does not know it needs all of it.
const REVIVED: u8 = 16;

/// A register that a commit set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Key {
    Node { node: NodeId, what: u8 },
    Name { parent: NodeId, name: Name },
    Xattr { node: NodeId, name: XattrName },
}

/// The registers that a commit set. The order of the variants is stored.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    pub(super) fn of(changes: &[Change], revived: &[NodeId]) -> Self {
        let mut nodes: BTreeMap<NodeId, u8> = BTreeMap::new();
        let mut keys = Vec::new();
        for change in changes {
            let (node, bit) = match &change.entry {
                Entry::Node { id, .. } => (id, BORN),
                Entry::Data { node, .. } => (node, DATA),
                Entry::Meta { node, .. } => (node, META),
                Entry::Gone { node } => (node, GONE),
                Entry::Name { parent, name, .. } => {
                    let (parent, name) = (*parent, name.clone());
                    keys.push(Key::Name { parent, name });
                    continue;
                }
                Entry::Xattr { node, name, .. } => {
                    let (node, name) = (*node, name.clone());
                    keys.push(Key::Xattr { node, name });
                    continue;
                }
            };
            *nodes.entry(*node).or_default() |= bit;
        }
        for node in revived {
            *nodes.entry(*node).or_default() |= REVIVED;
        }
        let nodes = nodes
            .into_iter()
            .map(|(node, what)| Key::Node { node, what });
        Self(nodes.chain(keys).collect())
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        postcard::to_stdvec(self).map_err(|e| corrupt("the keys of a commit", e))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        postcard::from_bytes(bytes).map_err(|e| corrupt("the keys of a commit", e))
    }

    /// Leaves only registers that this commit was the last to set. Returns
    /// whether any went.
    pub(super) fn retain_current(&mut self, tree: Shared<'_>, seq: Seq) -> Result<bool> {
        let before = self.0.len();
        let mut kept = Vec::with_capacity(before);
        let mut tree = Ahead::new(tree)?;
        for key in self.0.drain(..) {
            let mut out = Vec::new();
            tell(&mut tree, seq, &key, Told::ALL, &mut out)?;
            if !out.is_empty() {
                kept.push(key);
            }
        }
        self.0 = kept;
        Ok(self.0.len() < before)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Who is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    pub(super) tag: Option<ReplicaTag>,
    /// It has never heard of what ended up to this commit.
    pub(super) unborn: Seq,
}

/// What is told of a commit.
#[derive(Debug, Clone, Copy)]
struct Told {
    /// Not what ended up to this commit.
    unborn: Seq,
    /// Who is told made the edits of the commit, and may not know what became
    /// of them.
    own: bool,
}

impl Told {
    const ALL: Self = Self {
        unborn: 0,
        own: true,
    };
}

/// A page of the log.
#[derive(Debug)]
pub(super) struct Page {
    changes: Vec<Change>,
    reports: Vec<Report>,
    pub(super) next: Seq,
    pub(super) cut: Option<Cursor>,
    /// See [`HubDone::Page`].
    pub(super) lost: u64,
}

impl From<Page> for HubDone {
    fn from(page: Page) -> Self {
        Self::Page {
            changes: page.changes,
            reports: page.reports,
            next: page.next,
            cut: page.cut,
            lost: page.lost,
        }
    }
}

/// Where a replica begins to follow, or why it cannot.
pub(super) fn subscribe(db: &Connection, from: &Start) -> Result<Result<Seq, (Why, Seq)>> {
    let state = State::load(db)?;
    let Start::At(cursor) = from else {
        return Ok(Ok(0));
    };
    let reset = |why| Ok(Err((why, state.horizon)));
    if cursor.epoch != state.epoch {
        return reset(Why::Epoch);
    }
    if cursor.seq > state.head {
        return reset(Why::Forked);
    }
    if cursor.seq < state.horizon {
        return reset(Why::Horizon);
    }
    if chain_at(db, cursor.seq)? != Some(cursor.chain) {
        return reset(Why::Forked);
    }
    if cursor.scope != Scope::ALL {
        return reset(Why::Scope);
    }
    Ok(Ok(cursor.seq))
}

impl Hub {
    /// The changes of commits after `after`, about `max` of them.
    pub(super) fn feed(&self, after: Seq, max: usize, reader: Reader) -> Result<Page> {
        let db = self.replica.inner.db.reader();
        // One read transaction: a commit beside it changes nothing here.
        let tx = db.unchecked_transaction()?;
        let state = State::load(&tx)?;
        let (mut changes, mut reports) = (Vec::new(), Vec::new());
        let mut next = state.head;
        {
            let mut ahead = Ahead::new(Shared::new(&tx, HUB))?;
            let mut find = tx.prepare_cached(
                "SELECT seq, keys, author, outcomes FROM hub_commit WHERE seq > ? ORDER BY seq",
            )?;
            let mut rows = find.query([int(after)])?;
            while let Some(row) = rows.next()? {
                let seq = uint(row.get(0)?);
                let keys = row
                    .get_ref(1)?
                    .as_blob()
                    .map_err(|e| corrupt("commit", e))?;
                let by = ReplicaTag(row.get::<_, i64>(2)?.cast_unsigned());
                let told = Told {
                    unborn: reader.unborn,
                    own: reader.tag == Some(by),
                };
                let keys = Keys::decode(keys)?.0;
                // A new file is two keys and four changes. A vector that grows has
                // them twice.
                changes.reserve(2 * keys.len());
                for key in &keys {
                    tell(&mut ahead, seq, key, told, &mut changes)?;
                }
                let outcomes: Option<Vec<u8>> = row.get(3)?;
                if let Some(outcomes) = outcomes.filter(|_| seq > reader.unborn) {
                    let outcomes = postcard::from_bytes(&outcomes)
                        .map_err(|e| corrupt("the outcomes of a commit", e))?;
                    let report = Report { seq, by, outcomes };
                    if told.own {
                        tell_aliases(ahead.tree, &report, &mut changes)?;
                    }
                    reports.push(report);
                }
                if changes.len() >= max {
                    next = seq;
                    break;
                }
            }
        }
        tx.commit()?;
        Ok(Page {
            changes,
            reports,
            next,
            cut: (next >= state.head).then(|| state.cursor()),
            lost: 0,
        })
    }
}

fn chain_at(db: &Connection, seq: Seq) -> Result<Option<Chain>> {
    if seq == 0 {
        return Ok(Some(Chain::GENESIS));
    }
    let mut find = db.prepare_cached("SELECT chain FROM hub_commit WHERE seq = ?")?;
    let chain: Option<Option<[u8; 16]>> = find.query_row([int(seq)], |r| r.get(0)).optional()?;
    Ok(chain.flatten().map(Chain))
}

/// Tells what a key means now, if its register is still of that commit.
fn tell(
    ahead: &mut Ahead<'_>,
    seq: Seq,
    key: &Key,
    told: Told,
    out: &mut Vec<Change>,
) -> Result<()> {
    match key {
        Key::Node { node, what } => {
            if let Some(record) = ahead.record(*node)? {
                tell_node(ahead.tree, seq, *node, *what, record, told, out)?;
            }
        }
        Key::Name { parent, name } => {
            let place = (*parent, name.clone());
            let Some((node, ver)) = ahead.name(&place)? else {
                return Ok(());
            };
            if ver == seq && (node.is_some() || ver > told.unborn) {
                let (parent, name) = place;
                let entry = Entry::Name { parent, name, node };
                out.push(Change { ver, entry });
            }
        }
        Key::Xattr { node, name } => {
            let Some((value, ver)) = ahead.tree.attribute(*node, name)? else {
                return Ok(());
            };
            let counts = ver == seq && (value.is_some() || ver > told.unborn);
            // Of a node that lived again later, everything is told there.
            let lives = |r: Record| r.gone.is_none() && r.born <= seq;
            if counts && ahead.record(*node)?.is_some_and(lives) {
                let (node, name) = (*node, name.clone());
                let entry = Entry::Xattr { node, name, value };
                out.push(Change { ver, entry });
            }
        }
    }
    Ok(())
}

fn tell_node(
    tree: Shared<'_>,
    seq: Seq,
    node: NodeId,
    what: u8,
    record: Record,
    told: Told,
    out: &mut Vec<Change>,
) -> Result<()> {
    if let Some(ver) = record.gone.as_ref().map(|(ver, _)| *ver) {
        if told.own && what & (BORN | REVIVED) != 0 {
            tell_dead(tree, seq, node, record, out)?;
        }
        if ver == seq && what & GONE != 0 && ver > told.unborn {
            let entry = Entry::Gone { node };
            out.push(Change { ver, entry });
        }
        return Ok(());
    }
    tell_life(tree, seq, node, what, record, out)
}

/// Tells of the nodes that stand for nodes of the receiver since this commit of
/// its own, and that are dead: what it did meanwhile was done to them, and it has
/// never heard of them.
fn tell_aliases(tree: Shared<'_>, report: &Report, out: &mut Vec<Change>) -> Result<()> {
    for outcome in &report.outcomes {
        let Outcome::Alias { to, .. } = outcome else {
            continue;
        };
        if let Some(record) = tree.record(*to)?.filter(|record| record.gone.is_some()) {
            tell_dead(tree, report.seq, *to, record, out)?;
        }
    }
    Ok(())
}

/// Tells of a dead node what it was and where. Its author, or who made an alias
/// of it, may have written to it meanwhile, and that brings it back. Its end is
/// told in its commit.
fn tell_dead(
    tree: Shared<'_>,
    seq: Seq,
    node: NodeId,
    record: Record,
    out: &mut Vec<Change>,
) -> Result<()> {
    let Some((_, (parent, name))) = record.gone else {
        return Ok(());
    };
    let (id, kind, born) = (node, record.kind, record.born);
    let mut tell = |ver, entry| out.push(Change { ver, entry });
    tell(born, Entry::Node { id, kind });
    if let Some((ver, data)) = record.data {
        tell(ver, Entry::Data { node, data });
    }
    if let Some((ver, meta)) = record.meta {
        tell(ver, Entry::Meta { node, meta });
    }
    for (name, value, ver) in tree.attributes(node)? {
        if value.is_some() {
            tell(ver, Entry::Xattr { node, name, value });
        }
    }
    let node = Some(node);
    tell(born.max(seq), Entry::Name { parent, name, node });
    Ok(())
}

/// Tells of a node what is newer than its birth, or all if that is new.
fn tell_life(
    tree: Shared<'_>,
    seq: Seq,
    node: NodeId,
    what: u8,
    record: Record,
    out: &mut Vec<Change>,
) -> Result<()> {
    // Of a node that lived again later, everything is told there.
    if record.born > seq {
        return Ok(());
    }
    let again = what & REVIVED != 0 && record.born == seq;
    if again || what & BORN != 0 && record.born == seq {
        let (id, kind) = (node, record.kind);
        let entry = Entry::Node { id, kind };
        out.push(Change { ver: seq, entry });
    }
    // What is newer is told in its commit.
    let wanted = |ver: Seq| ver == seq || again && ver <= seq;
    if let Some((ver, data)) = record.data.filter(|(ver, _)| wanted(*ver)) {
        let entry = Entry::Data { node, data };
        out.push(Change { ver, entry });
    }
    if let Some((ver, meta)) = record.meta.filter(|(ver, _)| wanted(*ver)) {
        let entry = Entry::Meta { node, meta };
        out.push(Change { ver, entry });
    }
    if again {
        for (name, value, ver) in tree.attributes(node)? {
            if ver < seq && value.is_some() {
                let entry = Entry::Xattr { node, name, value };
                out.push(Change { ver, entry });
            }
        }
    }
    Ok(())
}
