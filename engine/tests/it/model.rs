//! Random operations, each compared with the reference, over crashes and restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_engine::{
    Allocate, Attr, FsError, Ino, NewNode, NodeKind, Options, Pin, RenameMode, Replica, SeekTo,
    SetAttr, SetTime, Timestamp, XattrMode,
};
use cairn_protocol::{ChunkerId, Data, Manifest, ReadAt, cut};
use rustix::io::Errno;

use crate::reference::{Answer, Node, ROOT, Tree};
use crate::support::{
    Rng, assert_clean, assert_same, crash_copy, place, quiet, seeds, single_file, tiny,
};

const FILE_MAX: u64 = 8 << 20;
/// All contents of the model together, so that whole-tree comparisons stay quick.
const BYTES_MAX: usize = 24 << 20;

struct Kept {
    pin: Pin,
    tree: Tree,
}

struct Run {
    rng: Rng,
    options: Options,
    _dir: tempfile::TempDir,
    path: PathBuf,
    crashes: u64,
    replica: Option<Replica>,
    tree: Tree,
    /// Open handles: node, and whether it may write.
    handles: Vec<(u64, bool)>,
    /// Nodes that are gone for ever.
    dead: Vec<u64>,
    pins: Vec<Kept>,
    step: u64,
    log: Vec<String>,
}

/// Compares an answer of the engine with that of the reference.
#[track_caller]
fn agree<T, U: Debug>(got: Result<T, FsError>, want: Answer<U>, what: &str) -> Option<(T, U)> {
    match (got, want) {
        (Ok(got), Ok(want)) => Some((got, want)),
        (Err(got), Err(want)) => {
            assert_eq!(got.errno(), want, "{what}: {got}");
            None
        }
        (Ok(_), Err(want)) => panic!("{what}: worked, expected {want:?}"),
        (Err(got), Ok(_)) => panic!("{what}: {got:?}, expected it to work"),
    }
}

impl Run {
    fn new(seed: u64, options: Options) -> Self {
        let (dir, path) = place();
        let replica = Replica::open(&path, options.clone()).unwrap();
        let tree = Tree::new(&replica.attr(Ino::ROOT).unwrap());
        Self {
            rng: Rng::new(seed),
            options,
            _dir: dir,
            path,
            crashes: 0,
            replica: Some(replica),
            tree,
            handles: Vec::new(),
            dead: Vec::new(),
            pins: Vec::new(),
            step: 0,
            log: Vec::new(),
        }
    }

    fn replica(&self) -> Replica {
        self.replica.clone().unwrap()
    }

    fn held(&self) -> BTreeSet<u64> {
        self.handles.iter().map(|(ino, _)| *ino).collect()
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.log.len() == 60 {
            self.log.remove(0);
        }
        self.log.push(format!("{}: {}", self.step, what()));
    }

    // What to operate on.

    fn any(&mut self, kind: Option<NodeKind>) -> u64 {
        let all: Vec<u64> = self
            .tree
            .nodes
            .iter()
            .filter(|(_, n)| kind.is_none_or(|k| n.kind == k))
            .map(|(ino, _)| *ino)
            .collect();
        if all.is_empty() {
            return ROOT;
        }
        // Mostly what was made last, so that the same nodes see many operations.
        let from = if self.rng.chance(60) {
            all.len().saturating_sub(6)
        } else {
            0
        };
        all[from + self.rng.index(all.len() - from)]
    }

    fn dir(&mut self) -> u64 {
        if self.rng.chance(3) {
            return self.any(None);
        }
        self.any(Some(NodeKind::Dir))
    }

    fn file(&mut self) -> u64 {
        if self.rng.chance(2) {
            return self.any(None);
        }
        self.any(Some(NodeKind::File))
    }

    fn name(&mut self) -> Vec<u8> {
        match self.rng.below(40) {
            0 => vec![0xff, 0xfe, b'\n'],
            1 => vec![b'x'; 255],
            2 => "ключ 🔑".as_bytes().to_vec(),
            n => format!("n{n}").into_bytes(),
        }
    }

    /// A name in use, or any.
    fn entry(&mut self) -> (u64, Vec<u8>) {
        let dir = self.dir();
        let names: Vec<Vec<u8>> = match self.tree.nodes.get(&dir) {
            Some(node) if !self.rng.chance(10) => node.entries.keys().cloned().collect(),
            _ => Vec::new(),
        };
        if names.is_empty() {
            (dir, self.name())
        } else {
            let name = self.rng.pick(&names).clone();
            (dir, name)
        }
    }

    fn size(&mut self) -> u64 {
        let near = |rng: &mut Rng, at: u64| at - 300 + rng.below(600);
        match self.rng.below(20) {
            0..10 => self.rng.below(600),
            10..14 => near(&mut self.rng, 64 << 10),
            14..17 => near(&mut self.rng, 1 << 20),
            17 => self.rng.below(FILE_MAX),
            _ => self.rng.below(300_000),
        }
    }

    fn offset(&mut self, ino: u64) -> u64 {
        let size = self.tree.nodes[&ino].content.len() as u64;
        if size > 0 && self.rng.chance(60) {
            self.rng.below(size + 1)
        } else {
            self.size()
        }
    }

    fn len(&mut self) -> usize {
        match self.rng.below(20) {
            0..12 => self.rng.below(700) as usize,
            12..17 => self.rng.below(70_000) as usize,
            17..19 => self.rng.below(300_000) as usize,
            _ => self.rng.below(3 << 20) as usize,
        }
    }

    // Operations.

    fn step(&mut self) {
        self.step += 1;
        match self.rng.below(100) {
            0..9 => self.make(NodeKind::File),
            9..12 => self.make(NodeKind::Dir),
            12..14 => self.symlink(),
            14..15 => self.special(),
            15..18 => self.link(),
            18..23 => self.unlink(),
            23..25 => self.rmdir(),
            25..32 => self.rename(),
            32..46 => self.write(),
            46..50 => self.append(),
            50..55 => self.truncate(),
            55..59 => self.allocate(),
            59..63 => self.copy(),
            63..66 => self.set_attr(),
            66..70 => self.xattr(),
            70..77 => self.read(),
            77..80 => self.seek(),
            80..84 => self.retain(),
            84..90 => self.release(),
            90..92 => self.list_some(),
            92 => self.look_for_the_dead(),
            93 => self.sync_something(),
            94 => self.pin(),
            95 => self.unpin(),
            96 => drop(self.replica().gc().unwrap()),
            97 => drop(self.replica().cursor().unwrap()),
            98 => self.crowd(),
            _ => self.settle(),
        }
    }

    fn make(&mut self, kind: NodeKind) {
        let (dir, name) = (self.dir(), self.name());
        let new = NewNode {
            kind,
            perm: *self.rng.pick(&[0o644, 0o755, 0o600, 0o2755, 0o4711]),
            uid: self.rng.below(3) as u32,
            gid: self.rng.below(3) as u32,
            rdev: 0,
        };
        self.say(|| format!("make {kind:?} in {dir} {name:?}"));
        let got = self.replica().make(Ino(dir), &name, &new);
        self.made(got, dir, &name, &new, &[]);
    }

    fn made(
        &mut self,
        got: Result<Attr, FsError>,
        dir: u64,
        name: &[u8],
        new: &NewNode,
        target: &[u8],
    ) {
        let want = self.tree.may_add(dir, name);
        if let Some((attr, ())) = agree(got, want, "make") {
            // After a crash, numbers that were never committed come again.
            self.dead.retain(|ino| *ino != attr.ino.0);
            self.tree.add(dir, name, attr.ino.0, new, target);
        }
    }

    fn symlink(&mut self) {
        let (dir, name) = (self.dir(), self.name());
        let len = self.rng.below(80) as usize + 1;
        let target: Vec<u8> = self.rng.bytes(len).iter().map(|b| b | 1).collect();
        let new = NewNode {
            kind: NodeKind::Symlink,
            perm: 0o777,
            uid: 7,
            gid: 8,
            rdev: 0,
        };
        self.say(|| format!("symlink in {dir} {name:?}"));
        let got = self.replica().symlink(Ino(dir), &name, &target, 7, 8);
        self.made(got, dir, &name, &new, &target);
    }

    fn special(&mut self) {
        let (dir, name) = (self.dir(), self.name());
        let kind = *self
            .rng
            .pick(&[NodeKind::Fifo, NodeKind::Socket, NodeKind::CharDevice]);
        let new = NewNode {
            kind,
            perm: 0o600,
            uid: 0,
            gid: 0,
            rdev: if kind == NodeKind::CharDevice {
                0x501
            } else {
                0
            },
        };
        self.say(|| format!("{kind:?} in {dir} {name:?}"));
        let got = self.replica().make(Ino(dir), &name, &new);
        self.made(got, dir, &name, &new, &[]);
    }

    fn link(&mut self) {
        let (ino, dir, name) = (self.any(None), self.dir(), self.name());
        self.say(|| format!("link {ino} in {dir} {name:?}"));
        let got = self.replica().link(Ino(ino), Ino(dir), &name);
        agree(got, self.tree.link(ino, dir, &name), "link");
    }

    /// Notes which nodes an operation ended.
    fn ended(&mut self, before: &Tree) {
        let gone = before
            .nodes
            .keys()
            .filter(|ino| !self.tree.nodes.contains_key(ino));
        self.dead.extend(gone);
    }

    fn unlink(&mut self) {
        let ((dir, name), held) = (self.entry(), self.held());
        self.say(|| format!("unlink {dir} {name:?}"));
        let before = self.tree.clone();
        let got = self.replica().unlink(Ino(dir), &name);
        agree(got, self.tree.unlink(dir, &name, &held), "unlink");
        self.ended(&before);
    }

    fn rmdir(&mut self) {
        let ((dir, name), held) = (self.entry(), self.held());
        self.say(|| format!("rmdir {dir} {name:?}"));
        let before = self.tree.clone();
        let got = self.replica().rmdir(Ino(dir), &name);
        agree(got, self.tree.rmdir(dir, &name, &held), "rmdir");
        self.ended(&before);
    }

    fn rename(&mut self) {
        let (from, held) = (self.entry(), self.held());
        let to = if self.rng.chance(50) {
            self.entry()
        } else {
            (self.dir(), self.name())
        };
        let modes = [
            RenameMode::Replace,
            RenameMode::NoReplace,
            RenameMode::Exchange,
        ];
        let mode = *self.rng.pick(&modes);
        self.say(|| format!("rename {from:?} {to:?} {mode:?}"));
        let before = self.tree.clone();
        let got = self
            .replica()
            .rename(Ino(from.0), &from.1, Ino(to.0), &to.1, mode);
        let want = self
            .tree
            .rename((from.0, &from.1), (to.0, &to.1), mode, &held);
        agree(got, want, "rename");
        self.ended(&before);
    }

    fn write(&mut self) {
        let ino = self.file();
        let (offset, len) = (self.offset(ino), self.len());
        let len = len.min((FILE_MAX - offset.min(FILE_MAX)) as usize);
        let data = if self.rng.chance(10) {
            vec![0; len]
        } else {
            self.rng.bytes(len)
        };
        self.say(|| format!("write {ino} {offset}+{len}"));
        let got = self.replica().write(Ino(ino), offset, &data);
        agree(got, self.tree.write(ino, offset, &data), "write");
    }

    fn append(&mut self) {
        let ino = self.file();
        let len = self.len();
        let data = self.rng.bytes(len);
        self.say(|| format!("append {ino} +{len}"));
        let offset = self.tree.nodes[&ino].content.len() as u64;
        let got = self.replica().append(Ino(ino), &data);
        let want = self.tree.write(ino, offset, &data);
        if let Some((at, ())) = agree(got, want, "append") {
            assert_eq!(at, offset);
        }
    }

    fn truncate(&mut self) {
        let ino = self.file();
        let size = if self.rng.chance(20) {
            0
        } else {
            self.offset(ino)
        };
        self.say(|| format!("truncate {ino} {size}"));
        let set = SetAttr {
            size: Some(size),
            ..SetAttr::default()
        };
        let got = self.replica().set_attr(Ino(ino), &set);
        if let Some((attr, ())) = agree(got, self.tree.truncate(ino, size), "truncate") {
            assert_eq!(attr.size, size);
        }
    }

    fn allocate(&mut self) {
        let ino = self.file();
        let offset = self.offset(ino);
        let len = (self.len() as u64).min(FILE_MAX - offset.min(FILE_MAX));
        let keep_size = self.rng.chance(50);
        let how = *self.rng.pick(&[
            Allocate::PunchHole,
            Allocate::Zero { keep_size },
            Allocate::Reserve { keep_size },
        ]);
        self.say(|| format!("allocate {ino} {offset}+{len} {how:?}"));
        let got = self.replica().allocate(Ino(ino), offset, len, how);
        agree(got, self.tree.allocate(ino, offset, len, how), "allocate");
    }

    fn copy(&mut self) {
        let (from, to) = (self.file(), self.any(Some(NodeKind::File)));
        let (from_offset, to_offset, len) = if self.rng.chance(50) {
            (0, 0, FILE_MAX)
        } else {
            (self.offset(from), self.offset(to), self.len() as u64)
        };
        if to_offset + len.min(self.tree.nodes[&from].content.len() as u64) > FILE_MAX || to == ROOT
        {
            return;
        }
        self.say(|| format!("copy {from} {from_offset} -> {to} {to_offset} +{len}"));
        let got = self
            .replica()
            .copy_range(Ino(from), from_offset, Ino(to), to_offset, len);
        let want = self.tree.copy((from, from_offset), (to, to_offset), len);
        if let Some((got, want)) = agree(got, want, "copy") {
            assert_eq!(got, want);
        }
    }

    fn set_attr(&mut self) {
        let ino = self.any(None);
        let mut set = SetAttr::default();
        match self.rng.below(5) {
            0 => set.perm = Some(self.rng.below(0o10000) as u16),
            1 => set.uid = Some(self.rng.below(1 << 31) as u32),
            2 => set.gid = Some(self.rng.below(1 << 31) as u32),
            3 => set.atime = Some(SetTime::Now),
            _ => {
                let seconds = self.rng.below(1 << 34) as i64 - (1 << 33);
                let nanos = self.rng.below(1_000_000_000) as u32;
                set.mtime = Some(SetTime::At(Timestamp::new(seconds, nanos).unwrap()));
            }
        }
        self.say(|| format!("set_attr {ino} {set:?}"));
        self.replica().set_attr(Ino(ino), &set).unwrap();
        let node = self.tree.edit(ino);
        node.perm = set.perm.unwrap_or(node.perm);
        node.uid = set.uid.unwrap_or(node.uid);
        node.gid = set.gid.unwrap_or(node.gid);
        if let Some(SetTime::At(time)) = set.mtime {
            node.mtime = Some(time);
        }
    }

    fn xattr(&mut self) {
        let ino = self.any(None);
        let name = format!("user.{}", self.rng.below(4)).into_bytes();
        if self.rng.chance(30) {
            self.say(|| format!("remove xattr {ino} {name:?}"));
            let got = self.replica().remove_xattr(Ino(ino), &name);
            agree(got, self.tree.remove_xattr(ino, &name), "remove_xattr");
            return;
        }
        let mode = *self
            .rng
            .pick(&[XattrMode::Set, XattrMode::Create, XattrMode::Replace]);
        let len = if self.rng.chance(5) {
            60_000
        } else {
            self.rng.below(100)
        };
        let value = self.rng.bytes(len as usize);
        self.say(|| format!("set xattr {ino} {name:?} {mode:?}"));
        let got = self.replica().set_xattr(Ino(ino), &name, &value, mode);
        let want = self.tree.set_xattr(ino, &name, &value, mode);
        agree(got, want, "set_xattr");
    }

    fn read(&mut self) {
        let ino = self.file();
        let (offset, len) = (self.offset(ino), self.len());
        self.say(|| format!("read {ino} {offset}+{len}"));
        let mut bytes = vec![0xaa; len];
        let got = self.replica().read(Ino(ino), offset, &mut bytes);
        let want = self.tree.file(ino).map(|n| n.content.clone());
        if let Some((got, content)) = agree(got, want, "read") {
            let start = (offset as usize).min(content.len());
            let end = (start + len).min(content.len());
            assert_same(
                &bytes[..got],
                &content[start..end],
                format!("read {ino} at {offset}"),
            );
        }
    }

    fn seek(&mut self) {
        let ino = self.file();
        let offset = self.offset(ino);
        let Ok(node) = self.tree.file(ino) else {
            return;
        };
        let content = node.content.clone();
        let size = content.len() as u64;
        for to in [SeekTo::Data, SeekTo::Hole] {
            self.say(|| format!("seek {ino} {offset} {to:?}"));
            match self.replica().seek(Ino(ino), offset, to) {
                Ok(at) => {
                    assert!(offset < size && at >= offset && at <= size);
                    if to == SeekTo::Data {
                        assert!(at < size, "data at the end");
                        let skipped = &content[offset as usize..at as usize];
                        assert!(skipped.iter().all(|b| *b == 0), "skipped data");
                    } else if at < size {
                        assert_eq!(content[at as usize], 0, "a hole has data");
                    }
                }
                Err(error) => {
                    assert_eq!(error.errno(), Errno::NXIO);
                    let rest = &content[offset.min(size) as usize..];
                    assert!(
                        rest.iter().all(|b| *b == 0),
                        "no data was found where some is"
                    );
                    assert!(to == SeekTo::Data || rest.is_empty());
                }
            }
        }
    }

    fn retain(&mut self) {
        let (ino, write) = (self.any(None), self.rng.chance(70));
        self.say(|| format!("retain {ino} {write}"));
        self.replica().retain(Ino(ino), write).unwrap();
        self.handles.push((ino, write));
    }

    fn release(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        let index = self.rng.index(self.handles.len());
        let (ino, write) = self.handles.swap_remove(index);
        self.say(|| format!("release {ino} {write}"));
        self.replica().release(Ino(ino), write);
        let open = self.handles.iter().any(|(other, _)| *other == ino);
        if self.tree.nodes[&ino].nlink == 0 && !open {
            self.tree.nodes.remove(&ino);
            self.dead.push(ino);
        }
    }

    /// Lists a directory in pages, each going on from a cookie.
    fn list_some(&mut self) {
        let dir = self.dir();
        let Ok(node) = self.tree.get(dir) else { return };
        if node.kind != NodeKind::Dir {
            return;
        }
        let mut want: BTreeMap<Vec<u8>, u64> = node.entries.clone();
        let page = self.rng.below(700) as usize + 1;
        self.say(|| format!("list {dir} by {page}"));
        let replica = self.replica();
        let mut cookie = 0;
        loop {
            let mut count = 0;
            replica
                .read_dir(Ino(dir), cookie, &mut |e| {
                    assert_eq!(want.remove(e.name), Some(e.attr.ino.0), "{:?}", e.name);
                    cookie = e.cookie;
                    count += 1;
                    count < page
                })
                .unwrap();
            if count < page {
                break;
            }
        }
        assert!(want.is_empty(), "not listed: {:?}", want.len());
    }

    fn look_for_the_dead(&mut self) {
        if self.dead.is_empty() {
            return;
        }
        let from = self.dead.len().saturating_sub(5);
        let ino = self.dead[from + self.rng.index(self.dead.len() - from)];
        self.say(|| format!("look for {ino}, which is gone"));
        let found = self.replica().attr(Ino(ino));
        assert!(
            matches!(found, Err(FsError::NotFound(_))),
            "{ino} is dead: {found:?}"
        );
    }

    fn sync_something(&mut self) {
        let ino = self.any(None);
        self.say(|| format!("fsync {ino}"));
        match self.rng.below(3) {
            0 => self.replica().fsync(Ino(ino)).unwrap(),
            1 => self.replica().sync().unwrap(),
            _ => self.replica().flush().unwrap(),
        }
    }

    fn pin(&mut self) {
        if self.pins.len() == 3 {
            return;
        }
        self.say(|| "pin".into());
        let pin = self.replica().pin("a test").unwrap();
        let tree = self.tree.clone();
        self.pins.push(Kept { pin, tree });
    }

    fn unpin(&mut self) {
        if self.pins.is_empty() {
            return;
        }
        self.check_pins();
        self.say(|| "unpin".into());
        let index = self.rng.index(self.pins.len());
        let kept = self.pins.swap_remove(index);
        self.replica().unpin(kept.pin.id).unwrap();
    }

    fn check_pins(&self) {
        for kept in &self.pins {
            for (ino, node) in &kept.tree.nodes {
                if node.kind == NodeKind::File && node.nlink > 0 {
                    let data = self.replica().data_at(Ino(*ino), kept.pin.seq).unwrap();
                    assert!(
                        holds(data.as_ref(), &node.content),
                        "{ino} at {:?}: {data:?}",
                        kept.pin
                    );
                }
            }
        }
    }

    /// Makes many entries in one directory, by making files and links.
    fn crowd(&mut self) {
        let dir = self.any(Some(NodeKind::Dir));
        if self.tree.nodes.len() > 4_000 || self.tree.nodes[&dir].nlink == 0 {
            return;
        }
        let count = *self.rng.pick(&[300, 700, 2_100]);
        self.say(|| format!("{count} entries in {dir}"));
        let tag = self.step;
        for i in 0..count {
            let name = format!("crowd-{tag}-{i}").into_bytes();
            let new = NewNode {
                kind: NodeKind::File,
                perm: 0o644,
                uid: 1,
                gid: 1,
                rdev: 0,
            };
            let got = self.replica().make(Ino(dir), &name, &new);
            self.made(got, dir, &name, &new, &[]);
        }
    }

    /// Lets the background threads do what they would.
    fn settle(&mut self) {
        self.say(|| "rest".into());
        std::thread::sleep(std::time::Duration::from_millis(60));
    }

    /// Keeps the model small. Returns whether it had to.
    fn shrink(&mut self) -> bool {
        if self.tree.bytes() <= BYTES_MAX {
            return false;
        }
        let largest = self.tree.nodes.iter().max_by_key(|(_, n)| n.content.len());
        let ino = *largest.unwrap().0;
        self.say(|| format!("shrink {ino}"));
        self.replica()
            .set_attr(
                Ino(ino),
                &SetAttr {
                    size: Some(10),
                    ..SetAttr::default()
                },
            )
            .unwrap();
        self.tree.truncate(ino, 10).unwrap();
        true
    }

    // Comparisons.

    fn compare(&mut self) {
        let replica = self.replica();
        let found = Tree::of(&replica);
        if let Some(why) = found.differs(&self.tree.without_orphans(), &[]) {
            panic!("{why}");
        }
        for (ino, node) in self.tree.nodes.iter().filter(|(_, n)| n.nlink == 0) {
            let got = Node::of(&replica, *ino, node.parent);
            assert_eq!(got.nlink, 0);
            assert_same(
                &got.content,
                &node.content,
                format!("open and unlinked {ino}"),
            );
        }
        let usage = replica.usage().unwrap();
        assert_eq!(usage.nodes, self.tree.nodes.len() as u64, "number of nodes");
        self.check_pins();
    }

    /// The handles went with the process; what had no name went with them.
    fn forget_handles(&mut self) {
        let before = self.tree.clone();
        self.handles.clear();
        self.tree = self.tree.without_orphans();
        self.ended(&before);
    }

    fn reopen(&mut self) {
        self.say(|| "close and open".into());
        self.replica = None;
        self.replica = Some(Replica::open(&self.path, self.options.clone()).unwrap());
        self.forget_handles();
        self.compare();
    }

    /// Crashes some operations after a flush, and finds out which of them the
    /// replica still has: a prefix, with at least what was flushed.
    fn crash(&mut self) {
        self.say(|| "flush, then crash".into());
        self.replica().flush().unwrap();
        let mut trail = vec![self.tree.clone()];
        for _ in 0..self.rng.below(12) {
            self.step();
            trail.push(self.tree.clone());
            if self.shrink() {
                trail.push(self.tree.clone());
            }
        }
        self.crashes += 1;
        let copy = self
            .path
            .with_file_name(format!("crash-{}.cairn", self.crashes));
        crash_copy(&self.path, &copy);
        let replica = Replica::open(&copy, self.options.clone()).unwrap();
        let found = Tree::of(&replica);
        let mut whys = Vec::new();
        let survived = (0..trail.len()).rev().find(|k| {
            let later: Vec<&Tree> = trail[k + 1..].iter().collect();
            let why = found.differs(&trail[*k].without_orphans(), &later);
            whys.extend(why.clone());
            why.is_none()
        });
        assert!(
            survived.is_some(),
            "what the crash left is no prefix: {whys:#?}"
        );
        assert_clean(&replica);
        // Pins are committed apart; go on with the copy only where they agree.
        let pins = replica.pins().unwrap().into_iter().map(|p| p.id);
        if pins.collect::<BTreeSet<_>>() == self.pins.iter().map(|k| k.pin.id).collect() {
            self.replica = None;
            let old = std::mem::replace(&mut self.path, copy);
            if old.is_dir() {
                std::fs::remove_dir_all(old).unwrap();
            } else {
                std::fs::remove_file(old).unwrap();
            }
            self.replica = Some(replica);
            // The contents that were found, which may be newer in place.
            self.tree = trail.swap_remove(survived.unwrap()).without_orphans();
            for (ino, node) in &found.nodes {
                if node.kind == NodeKind::File {
                    self.tree.edit(*ino).content = Arc::clone(&node.content);
                }
            }
            self.handles.clear();
            self.dead.retain(|ino| !self.tree.nodes.contains_key(ino));
            self.compare();
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl ReadAt for Bytes<'_> {
    type Error = std::convert::Infallible;

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error> {
        let start = offset as usize;
        buf.copy_from_slice(&self.0[start..start + buf.len()]);
        Ok(())
    }
}

/// Whether a data register stands for this content.
pub(crate) fn holds(data: Option<&Data>, content: &[u8]) -> bool {
    match data {
        None => content.is_empty(),
        Some(Data::Inline { bytes }) => bytes == content,
        Some(Data::File { size, manifest, .. }) => {
            let len = content.len() as u64;
            let chunker = ChunkerId::for_size(len);
            let Ok(extents) = cut(chunker, &Bytes(content), len, &mut |_, _, _| Ok(()));
            let Ok(want) = Manifest::build(&extents, |_, _| Ok::<_, std::convert::Infallible>(()));
            *size == len && *manifest == want
        }
        Some(_) => false,
    }
}

fn run(seed: u64, options: Options, steps: u64) {
    println!("seed {seed}");
    let mut run = Run::new(seed, options);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while run.step < steps {
            run.step();
            run.shrink();
            match run.rng.below(400) {
                0..8 => run.compare(),
                8..12 => run.reopen(),
                12..18 => run.crash(),
                18..20 => {
                    run.say(|| "check".into());
                    assert_clean(&run.replica());
                }
                _ => {}
            }
        }
        run.compare();
        run.reopen();
        assert_clean(&run.replica());
    }));
    if let Err(panic) = outcome {
        println!("the last operations of seed {seed}:");
        for line in &run.log {
            println!("  {line}");
        }
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn random_operations_agree_with_the_reference() {
    for seed in seeds(1) {
        run(seed, Options::default(), 1_000);
    }
}

#[test]
fn random_operations_agree_when_memory_is_small() {
    for seed in seeds(1) {
        run(seed ^ 0x5eed, tiny(), 1_000);
    }
}

#[test]
fn random_operations_agree_in_a_single_file() {
    for seed in seeds(1) {
        run(seed, single_file(Options::default()), 1_000);
        run(seed ^ 0xf11e, single_file(tiny()), 500);
    }
}

#[test]
fn random_operations_agree_when_commits_are_rare() {
    for seed in seeds(1) {
        run(seed ^ 0xca1, quiet(tiny()), 1_000);
    }
}
