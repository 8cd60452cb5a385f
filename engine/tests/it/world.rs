//! Replicas of the engine in the simulation of the protocol: real sessions over
//! streams that break, crashes between any two actions, hubs that are rolled
//! back; see `cairn_protocol::testing::World`.
//!
//! `CAIRN_SEEDS=n` runs `n` seeds, `CAIRN_SEED=x` that one only, and tells what
//! happens.

use std::path::PathBuf;
use std::sync::Arc;

use cairn_engine::{
    FsError, Ino, NewNode, NodeKind, Options, RenameMode, Replica, SetAttr, SetTime, Upstream,
    XattrMode,
};
use cairn_protocol::merge::Place;
use cairn_protocol::session::{ClientAction, ClientDone, Store};
use cairn_protocol::testing::{
    Do, EditError, HubSubject, ModelHub, ModelTree, ReplicaSubject, World,
};
use cairn_protocol::wire::Start;
use cairn_protocol::{Cursor, Meta, NodeId, ReplicaTag};

use crate::hub::simulation::EngineHub;
use crate::{space, support};

/// A replica that is opened again after each crash, from a copy.
pub(crate) struct Engine {
    pub(crate) replica: Replica,
    pub(crate) upstream: Arc<Upstream>,
    dir: tempfile::TempDir,
    pub(crate) lives: u32,
}

impl Engine {
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join(self.lives.to_string())
    }

    fn ino(&self, node: NodeId) -> Result<Ino, EditError> {
        self.replica.ino_of(node).ok().flatten().ok_or(EditError)
    }

    pub(crate) fn tree(changes: &[cairn_protocol::Change]) -> ModelTree {
        let mut tree = ModelTree::new();
        for change in changes {
            tree.apply(change.ver, &change.entry);
        }
        tree
    }

    fn make(&self, place: &Place, kind: NodeKind, meta: &Meta) -> Result<Ino, EditError> {
        let new = NewNode {
            kind,
            perm: meta.mode as u16,
            uid: meta.uid,
            gid: meta.gid,
            rdev: 0,
        };
        let dir = self.ino(place.0)?;
        Ok(done(|| self.replica.make(dir, place.1.as_bytes(), &new))?.ino)
    }

    /// Does it, and tells what ended.
    fn try_edit(&self, what: &Do) -> Result<Option<NodeId>, EditError> {
        let replica = &self.replica;
        let look = |place: &Place| {
            let attr = replica.lookup(self.ino(place.0)?, place.1.as_bytes());
            attr.map_err(|_| EditError)
        };
        let last = |place: &Place| -> Option<NodeId> {
            let attr = look(place).ok()?;
            let ends = attr.kind == NodeKind::Dir || attr.nlink == 1;
            let before = self.view();
            ends.then(|| before.at(place)).flatten()
        };
        match what {
            Do::Create(place, content, meta) => {
                let ino = self.make(place, NodeKind::File, meta)?;
                done(|| replica.write(ino, 0, content))?;
                Ok(None)
            }
            Do::Mkdir(place, meta) => self.make(place, NodeKind::Dir, meta).map(|_| None),
            Do::Write(node, content) => {
                let ino = self.ino(*node)?;
                let set = SetAttr {
                    size: Some(0),
                    ..SetAttr::default()
                };
                done(|| replica.set_attr(ino, &set))?;
                done(|| replica.write(ino, 0, content))?;
                Ok(None)
            }
            Do::Link(node, place) => {
                let (ino, dir) = (self.ino(*node)?, self.ino(place.0)?);
                done(|| replica.link(ino, dir, place.1.as_bytes()))?;
                Ok(None)
            }
            Do::Unlink(place) => {
                let (ended, dir) = (last(place), self.ino(place.0)?);
                match look(place)?.kind {
                    NodeKind::Dir => done(|| replica.rmdir(dir, place.1.as_bytes()))?,
                    _ => done(|| replica.unlink(dir, place.1.as_bytes()))?,
                }
                Ok(ended)
            }
            Do::Rename(from, to) => self.rename(from, to, RenameMode::Replace, last(to)),
            Do::Exchange(a, b) => self.rename(a, b, RenameMode::Exchange, None),
            Do::Chmod(node, meta) => {
                let set = SetAttr {
                    perm: Some(meta.mode as u16),
                    uid: Some(meta.uid),
                    mtime: Some(SetTime::At(meta.mtime)),
                    ..SetAttr::default()
                };
                let ino = self.ino(*node)?;
                done(|| replica.set_attr(ino, &set))?;
                Ok(None)
            }
            Do::SetXattr(node, name, value) => {
                let (ino, name) = (self.ino(*node)?, name.as_bytes());
                done(|| match value {
                    Some(value) => replica.set_xattr(ino, name, value, XattrMode::Set),
                    None => replica.remove_xattr(ino, name),
                })?;
                Ok(None)
            }
        }
    }

    fn rename(
        &self,
        from: &Place,
        to: &Place,
        mode: RenameMode,
        ended: Option<NodeId>,
    ) -> Result<Option<NodeId>, EditError> {
        let before = self.view();
        if before.at(from) == before.at(to) {
            return Err(EditError);
        }
        let (a, b) = (self.ino(from.0)?, self.ino(to.0)?);
        let (from, to) = (from.1.as_bytes(), to.1.as_bytes());
        done(|| self.replica.rename(a, from, b, to, mode))?;
        Ok(ended)
    }
}

/// One thing that a program does, which is possible or not, and has space.
fn done<T>(what: impl FnMut() -> Result<T, FsError>) -> Result<T, EditError> {
    space::patiently(what).map_err(|_| EditError)
}

impl ReplicaSubject for Engine {
    fn create(tag: ReplicaTag) -> Self {
        let dir = space::dir();
        let options = Options {
            tag: Some(tag),
            ..space::options()
        };
        let replica = Replica::open(dir.path().join("0"), options).unwrap();
        let upstream = Arc::new(replica.upstream().unwrap());
        Self {
            replica,
            upstream,
            dir,
            lives: 0,
        }
    }

    fn store(&self) -> Arc<dyn Store<ClientAction, ClientDone>> {
        self.upstream.begin_session();
        space::with_space(self.upstream.clone())
    }

    fn start(&self) -> (Start, u64, Option<[u8; 32]>) {
        self.upstream.start().unwrap()
    }

    fn view(&self) -> ModelTree {
        space::patiently(|| self.replica.flush()).unwrap();
        Self::tree(&self.replica.changes_since(None).unwrap().changes)
    }

    fn confirmed(&self) -> Option<(Cursor, ModelTree)> {
        let (cursor, changes) = self.upstream.confirmed().unwrap();
        Some((cursor?, Self::tree(&changes)))
    }

    fn edit(&mut self, what: &Do) -> Result<Option<NodeId>, EditError> {
        let done = self.try_edit(what);
        space::patiently(|| self.replica.flush()).unwrap();
        done
    }

    fn crash(&mut self) {
        let old = self.path();
        self.lives += 1;
        support::crash_copy(&old, &self.path());
        self.replica = Replica::open(self.path(), space::options()).unwrap();
        self.upstream = Arc::new(self.replica.upstream().unwrap());
        std::fs::remove_dir_all(old).unwrap();
    }

    fn is_clean(&self) -> bool {
        self.upstream.status().unwrap().is_clean()
    }

    fn check(&self) -> Result<(), String> {
        let report = self.replica.check(&mut |_, _| {}).unwrap();
        match report.problems.as_slice() {
            [] => Ok(()),
            problems => Err(format!("{problems:?}")),
        }
    }
}

/// The hub of every other world refuses batches now and then.
fn run<H: HubSubject>(seed: u64) {
    let tell = std::env::var("CAIRN_SEED").is_ok();
    let world = World::<H, Engine>::new(seed, tell);
    let world = match seed % 2 {
        0 => world,
        _ => world.refusing(seed),
    };
    run_world(world, seed);
}

/// A seed that failed before some things came to be in worlds.
fn run_old<H: HubSubject>(seed: u64) {
    run_world(World::<H, Engine>::new(seed, false).as_it_was(), seed);
}

fn run_world<H: HubSubject>(mut world: World<H, Engine>, seed: u64) {
    let result = world.run();
    for line in world.story() {
        println!("{line}");
    }
    assert_eq!(result, Ok(()), "CAIRN_SEED={seed}");
}

#[test]
fn i1_to_i16_replicas_of_the_engine_keep_the_laws_over_sessions_that_break() {
    support::seeds(25).into_iter().for_each(run::<ModelHub>);
}

#[test]
fn i1_to_i16_hold_for_replicas_of_the_engine_and_a_real_hub() {
    support::seeds(25).into_iter().for_each(run::<EngineHub>);
}

/// What random schedules found. A hub that had forgotten once told who began
/// from nothing of what ended since, and not that it had ended, so it lived
/// there and had no name (322, 440 and 483, the hub of the model). The content of
/// a file had gone to a copy, and when its name was removed, it counted as seen
/// what others had written to it: a plan that came to nothing had forgotten that
/// it was not (5046). What was removed in a directory that was removed, too, was
/// not pushed when the directory came again, for somebody had moved it (64). What
/// was removed turned out to be another node, which lived elsewhere here (287).
#[test]
fn seeds_of_worlds_that_failed_before_hold() {
    let seeds = [322, 440, 483, 5_046, 40_033];
    seeds.into_iter().for_each(run_old::<ModelHub>);
    [1_095, 5_046].into_iter().for_each(run_old::<EngineHub>);
    run::<ModelHub>(64);
    run::<EngineHub>(287);
}
