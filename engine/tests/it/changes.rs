//! The change log: whoever follows it, in pages of any size, from any cursor,
//! gets the same tree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cairn_engine::{
    CursorError, Ino, NodeKind, Options, RenameMode, Replica, SetAttr, SetTime, Timestamp,
    XattrMode,
};
use cairn_protocol::{Change, Cursor, Data, Entry, Meta, NodeId};

use crate::model::holds;
use crate::reference::{ROOT, Tree};
use crate::support::{Rng, assert_clean, new, open, place, seeds, tiny};

/// What a follower knows of a node.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    kind: NodeKind,
    meta: Option<Meta>,
    data: Option<Data>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A tree that is made of changes only.
#[derive(Clone, Debug, Default, PartialEq)]
struct Follower {
    nodes: BTreeMap<NodeId, Known>,
    names: BTreeMap<(NodeId, Vec<u8>), NodeId>,
}

impl Follower {
    fn apply(&mut self, changes: &[Change]) {
        // A name may come before its node, which was changed later; and what
        // is gone is gone, whatever else is told of it.
        for change in changes {
            if let Entry::Node { id, kind } = &change.entry {
                self.nodes.entry(*id).or_insert(Known {
                    kind: *kind,
                    meta: None,
                    data: None,
                    xattrs: BTreeMap::new(),
                });
            }
        }
        for change in changes {
            self.apply_one(&change.entry);
        }
    }

    fn apply_one(&mut self, entry: &Entry) {
        match entry {
            Entry::Node { .. } => {}
            Entry::Meta { node, meta } => {
                if let Some(known) = self.nodes.get_mut(node) {
                    known.meta = Some(*meta);
                }
            }
            Entry::Data { node, data } => {
                if let Some(known) = self.nodes.get_mut(node) {
                    known.data = Some(data.clone());
                }
            }
            Entry::Xattr { node, name, value } => {
                if let Some(known) = self.nodes.get_mut(node) {
                    match value {
                        Some(value) => known
                            .xattrs
                            .insert(name.as_bytes().to_vec(), value.to_vec()),
                        None => known.xattrs.remove(name.as_bytes()),
                    };
                }
            }
            Entry::Name { parent, name, node } => {
                let key = (*parent, name.as_bytes().to_vec());
                match node {
                    Some(node) => self.names.insert(key, *node),
                    None => self.names.remove(&key),
                };
            }
            Entry::Gone { node } => {
                self.nodes.remove(node);
                self.names.retain(|(parent, _), _| parent != node);
            }
        }
    }

    /// In what it is not the tree of a replica.
    fn differs(&self, replica: &Replica) -> Option<String> {
        let tree = Tree::of(replica);
        let id = |ino: u64| {
            let mut ids = self.nodes.keys();
            if ino == ROOT {
                Some(NodeId::ROOT)
            } else {
                ids.find(|id| id.counter == ino && **id != NodeId::ROOT)
                    .copied()
            }
        };
        for (ino, node) in &tree.nodes {
            let Some(known) = id(*ino).and_then(|id| self.nodes.get(&id)) else {
                return Some(format!("node {ino} is not known"));
            };
            if known.kind != node.kind || known.xattrs != node.xattrs {
                return Some(format!("node {ino}: {known:?}"));
            }
            match &known.meta {
                Some(m)
                    if (m.mode, m.uid, m.gid) == (u32::from(node.perm), node.uid, node.gid)
                        && Some(m.mtime) == node.mtime => {}
                other => return Some(format!("node {ino}: meta {other:?}, should be {node:?}")),
            }
            if node.kind == NodeKind::File && !holds(known.data.as_ref(), &node.content) {
                return Some(format!(
                    "node {ino}: other content than {} bytes",
                    node.content.len()
                ));
            }
            if let Some(Data::Symlink { target }) = &known.data
                && *target != node.target
            {
                return Some(format!("node {ino}: another target"));
            }
            let names: BTreeMap<Vec<u8>, u64> = self
                .names
                .iter()
                .filter(|((parent, _), _)| Some(*parent) == id(*ino))
                .map(|((_, name), node)| (name.clone(), node.counter))
                .collect();
            if names != node.entries {
                return Some(format!("directory {ino}: other names"));
            }
        }
        (self.nodes.len() != tree.nodes.len())
            .then(|| format!("{} nodes, should be {}", self.nodes.len(), tree.nodes.len()))
    }
}

struct Source {
    rng: Rng,
    _dir: tempfile::TempDir,
    path: PathBuf,
    options: Options,
    replica: Option<Replica>,
}

impl Source {
    fn new(seed: u64, options: Options) -> Self {
        let (dir, path) = place();
        let replica = Replica::open(&path, options.clone()).unwrap();
        Self {
            rng: Rng::new(seed),
            _dir: dir,
            path,
            options,
            replica: Some(replica),
        }
    }

    fn replica(&self) -> Replica {
        self.replica.clone().unwrap()
    }

    fn reopen(&mut self) {
        self.replica = None;
        self.replica = Some(Replica::open(&self.path, self.options.clone()).unwrap());
    }

    /// Some random operations; most may fail.
    fn work(&mut self, count: u64) {
        let replica = self.replica();
        for _ in 0..count {
            let tree: Vec<(Vec<u8>, Ino, NodeKind)> = everything(&replica);
            let rng = &mut self.rng;
            let (path, ino, _) = rng.pick(&tree).clone();
            let dirs: Vec<_> = tree
                .iter()
                .filter(|(_, _, k)| *k == NodeKind::Dir)
                .collect();
            let dir = rng.pick(&dirs).1;
            let name = format!("n{}", rng.below(30)).into_bytes();
            let old = path
                .rsplit(|b| *b == b'/')
                .next()
                .unwrap_or_default()
                .to_vec();
            match rng.below(20) {
                0..5 => drop(replica.make(dir, &name, &new(NodeKind::File))),
                5..7 => drop(replica.make(dir, &name, &new(NodeKind::Dir))),
                7 => drop(replica.symlink(dir, &name, b"target", 1, 1)),
                8 => drop(replica.link(ino, dir, &name)),
                9 => drop(replica.remove(&path)),
                10..12 => {
                    let mode = *rng.pick(&[RenameMode::Replace, RenameMode::Exchange]);
                    let parent = parent_of(&replica, &path);
                    drop(replica.rename(parent, &old, dir, &name, mode));
                }
                12..15 => {
                    let size = *rng.pick(&[10, 1_000, 100_000, 1_200_000]);
                    let data = rng.bytes(size);
                    drop(replica.write(ino, rng.below(5_000), &data));
                }
                15 => {
                    let value = rng.bytes(20);
                    drop(replica.set_xattr(ino, &name[..2], &value, XattrMode::Set));
                }
                16 => drop(replica.remove_xattr(ino, &name[..2])),
                17 => {
                    let set = SetAttr {
                        perm: Some(rng.below(0o1000) as u16),
                        mtime: Some(SetTime::At(
                            Timestamp::new(rng.below(1 << 30) as i64, 5).unwrap(),
                        )),
                        ..SetAttr::default()
                    };
                    drop(replica.set_attr(ino, &set));
                }
                18 => {
                    let set = SetAttr {
                        atime: Some(SetTime::Now),
                        ..SetAttr::default()
                    };
                    drop(replica.set_attr(ino, &set));
                }
                _ => drop(replica.flush()),
            }
        }
    }

    /// Brings a follower up to date in pages, changing things in between.
    fn follow(&mut self, follower: &mut Follower, since: Option<Cursor>, disturb: bool) -> Cursor {
        let replica = self.replica();
        let limit = *self.rng.pick(&[1, 2, 7, 50, 10_000]);
        let mut resume = 0;
        let mut until = None;
        loop {
            let page = replica
                .changes_page(since.as_ref(), until.as_ref(), resume, limit)
                .unwrap();
            assert!(
                page.changes.len() < limit + 40,
                "a page is about as long as asked for"
            );
            follower.apply(&page.changes);
            if !page.more {
                return page.next;
            }
            until = Some(page.next);
            resume = page.resume;
            if disturb && self.rng.chance(30) {
                self.work(3);
            }
        }
    }
}

fn everything(replica: &Replica) -> Vec<(Vec<u8>, Ino, NodeKind)> {
    let mut all = vec![(b"/".to_vec(), Ino::ROOT, NodeKind::Dir)];
    let mut next = 0;
    while next < all.len() {
        let (path, ino, kind) = all[next].clone();
        next += 1;
        if kind == NodeKind::Dir {
            replica
                .read_dir(ino, 0, &mut |e| {
                    let path = [path.as_slice(), b"/", e.name].concat();
                    all.push((path, e.attr.ino, e.attr.kind));
                    true
                })
                .unwrap();
        }
    }
    all
}

fn parent_of(replica: &Replica, path: &[u8]) -> Ino {
    let cut = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    let parent = if cut == 0 {
        b"/".as_slice()
    } else {
        &path[..cut]
    };
    replica.stat(parent).map_or(Ino::ROOT, |a| a.ino)
}

fn each_register_once(changes: &[Change]) {
    let mut seen = BTreeSet::new();
    for change in changes {
        let register = match &change.entry {
            Entry::Node { id, .. } => format!("node {id:?}"),
            Entry::Meta { node, .. } => format!("meta {node:?}"),
            Entry::Data { node, .. } => format!("data {node:?}"),
            Entry::Xattr { node, name, .. } => format!("xattr {node:?} {name:?}"),
            Entry::Name { parent, name, .. } => format!("name {parent:?} {name:?}"),
            Entry::Gone { node } => format!("gone {node:?}"),
        };
        assert!(seen.insert(register.clone()), "{register} twice");
    }
}

fn run(seed: u64, options: Options) {
    println!("seed {seed}");
    let mut source = Source::new(seed, options);
    let mut follower = Follower::default();
    let mut since = None;
    for round in 0..14 {
        source.work(25);
        let disturb = source.rng.chance(50);
        since = Some(source.follow(&mut follower, since, disturb));
        if disturb {
            since = Some(source.follow(&mut follower, since, false));
        }
        assert_eq!(follower.differs(&source.replica()), None, "round {round}");
        // From the beginning it is the same, and nothing is told twice.
        let all = source.replica().changes_since(None).unwrap();
        each_register_once(&all.changes);
        let mut fresh = Follower::default();
        fresh.apply(&all.changes);
        assert_eq!(
            fresh.differs(&source.replica()),
            None,
            "round {round}, from the start"
        );
        match source.rng.below(4) {
            0 => source.reopen(),
            1 => drop(source.replica().gc().unwrap()),
            _ => {}
        }
        // Neither made anything that is news.
        let cursor = since.unwrap();
        let news = source.replica().changes_since(Some(&cursor)).unwrap();
        follower.apply(&news.changes);
        assert_eq!(
            follower.differs(&source.replica()),
            None,
            "round {round}, afterwards"
        );
        since = Some(news.next);
    }
    assert_clean(&source.replica());
}

#[test]
fn a_follower_has_the_same_tree() {
    for seed in seeds(2) {
        run(seed, Options::default());
    }
}

#[test]
fn a_follower_has_the_same_tree_when_memory_is_small() {
    for seed in seeds(1) {
        run(seed ^ 0xc4, tiny());
    }
}

/// A commit without a new version, as of an access time or of a staging file,
/// replaced the chain at the newest cursor, which then was of "another history".
#[test]
fn a_cursor_outlives_commits_that_change_nothing_of_note() {
    let (_dir, path) = place();
    let replica = open(&path);
    let ino = replica.write_file("/f", b"content").unwrap().ino;
    let cursor = replica.cursor().unwrap();
    let atime = SetAttr {
        atime: Some(SetTime::Now),
        ..SetAttr::default()
    };
    replica.set_attr(ino, &atime).unwrap();
    replica.sync().unwrap();
    let changes = replica.changes_since(Some(&cursor)).unwrap();
    assert!(changes.changes.is_empty(), "{changes:?}");
    assert_eq!(replica.cursor().unwrap(), cursor);
}

/// A removed attribute was forgotten with the version it was removed at; the
/// next commit of the node told followers an older one, and they kept it.
#[test]
fn the_removal_of_an_attribute_is_told_whatever_is_committed_next() {
    let (_dir, path) = place();
    let replica = open(&path);
    let ino = replica.write_file("/f", b"content").unwrap().ino;
    replica
        .set_xattr(ino, b"user.a", b"1", XattrMode::Set)
        .unwrap();
    let cursor = replica.cursor().unwrap();
    replica.remove_xattr(ino, b"user.a").unwrap();
    replica.flush().unwrap();
    let atime = SetAttr {
        atime: Some(SetTime::Now),
        ..SetAttr::default()
    };
    replica.set_attr(ino, &atime).unwrap();
    replica.flush().unwrap();
    let changes = replica.changes_since(Some(&cursor)).unwrap().changes;
    let told = changes
        .iter()
        .any(|c| matches!(&c.entry, Entry::Xattr { value: None, .. }));
    assert!(told, "{changes:?}");
}

#[test]
fn a_foreign_cursor_is_refused() {
    let (_dir, path) = place();
    let replica = open(&path);
    let here = replica.cursor().unwrap();
    let other = Replica::in_memory().unwrap().cursor().unwrap();
    match replica.changes_since(Some(&other)) {
        Err(error @ CursorError::Epoch { .. }) => {
            assert!(error.to_string().contains("start again"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let mut forked = here;
    forked.chain.0[0] ^= 1;
    let found = replica.changes_since(Some(&forked));
    assert!(matches!(found, Err(CursorError::Forked { seq }) if seq == here.seq));
    let mut ahead = here;
    ahead.seq += 1_000;
    let found = replica.changes_since(Some(&ahead));
    assert!(matches!(found, Err(CursorError::Forked { .. })));
    replica.changes_since(Some(&here)).unwrap();
}

#[test]
fn a_cursor_too_old_for_the_log_is_refused_and_the_log_stays_short() {
    let (_dir, path) = place();
    let replica = open(&path);
    let old = replica.cursor().unwrap();
    let ino = replica.write_file("/f", b"").unwrap().ino;
    for i in 0..30_000 {
        replica.write(ino, 0, &[i as u8]).unwrap();
        if i % 1_000 == 0 {
            replica.flush().unwrap();
        }
    }
    let recent = replica.cursor().unwrap();
    let report = replica.gc().unwrap();
    assert!(report.log_entries > 0, "{report:?}");
    let found = replica.changes_since(Some(&old));
    assert!(
        matches!(found, Err(CursorError::Forked { .. })),
        "{found:?}"
    );
    replica.changes_since(Some(&recent)).unwrap();
    let mut follower = Follower::default();
    follower.apply(&replica.changes_since(None).unwrap().changes);
    assert_eq!(follower.differs(&replica), None);
}
