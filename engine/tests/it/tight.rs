//! Worlds on a small disk that is full now and then, in the middle of whatever
//! is written. Replicas and hubs need not get anywhere then, and sessions may
//! end; but all of the laws hold, and what was refused works when there is space.
//!
//! After a failure, the process may go on, try this and that while the disk stays
//! full, or end and begin again with what is on the disk.

use std::sync::{Arc, Mutex};

use cairn_engine::FsError;
use cairn_protocol::session::{ClientAction, ClientDone, HubAction, HubDone, Store, StoreFailure};
use cairn_protocol::testing::{
    Do, EditError, HubSubject, ModelHub, ModelTree, ReplicaSubject, World,
};
use cairn_protocol::wire::{Code, Start};
use cairn_protocol::{Cursor, Epoch, NodeId, ReplicaTag, Seq};

use crate::full_disk::Disk;
use crate::hub::simulation::EngineHub;
use crate::space::{self, Answer, Small};
use crate::support::{rounds, seeds};
use crate::world::Engine;

type Wake = Arc<dyn Fn() + Send + Sync>;

/// Something with processes that end.
trait Mortal: Send + 'static {
    fn life(&self) -> u64;

    /// The process ends and begins again with what is on the disk.
    fn die(&mut self);

    /// Tries something that writes, with the disk as it is.
    fn toil(&self) -> Result<(), FsError>;
}

impl Mortal for Engine {
    fn life(&self) -> u64 {
        self.lives.into()
    }

    fn die(&mut self) {
        self.crash();
    }

    fn toil(&self) -> Result<(), FsError> {
        match space::random(5) {
            0 => self.replica.flush(),
            1 => self.replica.sync(),
            2 => self.replica.gc().map(drop),
            3 => self.upstream.start().map(drop),
            _ => self.upstream.status().map(drop),
        }
    }
}

impl Mortal for EngineHub {
    fn life(&self) -> u64 {
        self.lives.cast_unsigned()
    }

    fn die(&mut self) {
        self.crash();
    }

    fn toil(&self) -> Result<(), FsError> {
        let replica = self.replica();
        match space::random(3) {
            0 => replica.flush(),
            1 => replica.sync(),
            _ => replica.gc().map(drop),
        }
    }
}

/// Something on a small disk.
struct Tight<S> {
    here: Arc<Mutex<S>>,
    /// Of those who have a store.
    wakes: Arc<Mutex<Vec<Wake>>>,
}

impl<S: Mortal> Tight<S> {
    fn new(create: impl FnOnce() -> S) -> Self {
        space::relieve();
        Self {
            here: Arc::new(Mutex::new(create())),
            wakes: Arc::default(),
        }
    }

    /// Does something for which there has to be space.
    fn with<T>(&self, what: impl FnOnce(&mut S) -> T) -> T {
        space::relieve();
        what(&mut self.here.lock().unwrap())
    }

    fn store<A: 'static, D: Answer + 'static>(
        &self,
        passes: fn(&A) -> bool,
        of: impl FnOnce(&S) -> Arc<dyn Store<A, D>>,
    ) -> Arc<dyn Store<A, D>> {
        let here = self.here.lock().unwrap();
        Arc::new(TightStore {
            life: here.life(),
            store: of(&here),
            here: self.here.clone(),
            wakes: self.wakes.clone(),
            passes,
        })
    }
}

/// A store on a small disk, of one life of its process.
struct TightStore<S, A, D> {
    here: Arc<Mutex<S>>,
    life: u64,
    store: Arc<dyn Store<A, D>>,
    wakes: Arc<Mutex<Vec<Wake>>>,
    /// Whether want of space is an answer to an action, and not the end of the
    /// session.
    passes: fn(&A) -> bool,
}

impl<S: Mortal, A, D: Answer> TightStore<S, A, D> {
    fn is_over(&self) -> bool {
        self.here.lock().unwrap().life() != self.life
    }

    /// What comes after a failure.
    fn go_on(&self) {
        for _ in 0..space::random(3) {
            space::fill_otherwise();
            match self.here.lock().unwrap().toil() {
                Ok(()) | Err(FsError::NoSpace | FsError::Db(_)) => {}
                Err(error) => panic!("for want of space: {error:?}"),
            }
        }
        if space::random(2) == 0 {
            space::relieve();
            self.here.lock().unwrap().die();
            // Who waits for news of what is over does so in vain.
            self.wakes.lock().unwrap().drain(..).for_each(|wake| wake());
        }
    }
}

/// As when a process is told to end: the one reason of which worlds know that
/// does not count.
fn over(why: &str) -> StoreFailure {
    StoreFailure {
        code: Code::SHUTDOWN,
        detail: why.to_owned(),
        retry_after_ms: 0,
    }
}

impl<S: Mortal, A, D: Answer> Store<A, D> for TightStore<S, A, D> {
    fn perform(&self, action: A) -> D {
        if self.is_over() {
            return D::failed(over("its process has ended"));
        }
        space::maybe_fill();
        let passes = (self.passes)(&action);
        let done = self.store.perform(action);
        let Some(why) = done.failure().filter(|why| space::is_excuse(why)) else {
            if space::random(4) == 0 {
                space::relieve();
            }
            return done;
        };
        let passes = passes && why.code == Code::QUOTA;
        let why = over(&why.to_string());
        self.go_on();
        if passes && !self.is_over() {
            return done;
        }
        D::failed(why)
    }

    fn on_news(&self, wake: Wake) -> Box<dyn Send + Sync> {
        self.wakes.lock().unwrap().push(wake.clone());
        self.store.on_news(wake)
    }
}

impl ReplicaSubject for Tight<Engine> {
    fn create(tag: ReplicaTag) -> Self {
        Self::new(|| Engine::create(tag))
    }

    fn store(&self) -> Arc<dyn Store<ClientAction, ClientDone>> {
        self.store(|_| false, Engine::store)
    }

    fn start(&self) -> (Start, u64, Option<[u8; 32]>) {
        self.with(|engine| engine.start())
    }

    fn view(&self) -> ModelTree {
        self.with(|engine| engine.view())
    }

    fn confirmed(&self) -> Option<(Cursor, ModelTree)> {
        // Nobody can look when what has to be committed first cannot be.
        let confirmed = self.here.lock().unwrap().upstream.confirmed();
        let (cursor, changes) = confirmed.ok()?;
        Some((cursor?, Engine::tree(&changes)))
    }

    fn edit(&mut self, what: &Do) -> Result<Option<NodeId>, EditError> {
        space::maybe_fill();
        self.here.lock().unwrap().edit(what)
    }

    fn crash(&mut self) {
        self.with(Engine::crash);
    }

    fn is_clean(&self) -> bool {
        let status = self.here.lock().unwrap().upstream.status();
        status.is_ok_and(|status| status.is_clean())
    }

    fn check(&self) -> Result<(), String> {
        self.with(|engine| engine.check())
    }
}

impl HubSubject for Tight<EngineHub> {
    type Backup = tempfile::TempDir;

    fn create(epoch: Epoch) -> Self {
        Self::new(|| EngineHub::create(epoch))
    }

    fn connect(&self) -> Arc<dyn Store<HubAction, HubDone>> {
        let passes = |action: &HubAction| {
            matches!(action, HubAction::Commit { .. } | HubAction::Store { .. })
        };
        self.store(passes, EngineHub::connect)
    }

    fn view(&self) -> ModelTree {
        self.here.lock().unwrap().view()
    }

    fn view_at(&self, seq: Seq) -> Option<ModelTree> {
        self.here.lock().unwrap().view_at(seq)
    }

    fn crash(&mut self) {
        self.with(EngineHub::crash);
    }

    fn backup(&self) -> Option<tempfile::TempDir> {
        self.with(|hub| hub.backup())
    }

    fn restore(&mut self, backup: tempfile::TempDir) {
        self.with(|hub| hub.restore(backup));
    }

    fn check(&self) -> Result<(), String> {
        self.with(|hub| hub.check())
    }
}

/// Runs a world of a seed. Returns how often something was refused for want of
/// space, or nothing where no disk can be had.
fn run<H: HubSubject>(seed: u64, disk: Option<Disk>) -> Option<u64> {
    let tell = std::env::var("CAIRN_SEED").is_ok();
    Small::new(disk?, seed, 200).begin();
    // What was refused is pushed again later than without moods.
    let mut world = World::<H, Tight<Engine>>::new(seed, tell).refusing(seed);
    let result = world.run();
    for line in world.story() {
        println!("{line}");
    }
    space::relieve();
    drop(world);
    assert_eq!(result, Ok(()), "CAIRN_SEED={seed}");
    Some(space::end())
}

/// Runs worlds with a hub of the model and with a real one, on a disk of each kind.
fn run_all(seed: u64) -> Option<u64> {
    let disk = || match seed % 2 {
        0 => Disk::tmpfs(64),
        _ => Disk::ext4(96),
    };
    let refused = [
        run::<ModelHub>(seed, disk())?,
        run::<Tight<EngineHub>>(seed, disk())?,
    ];
    Some(refused.into_iter().sum())
}

#[test]
fn i1_to_i16_hold_on_a_disk_that_is_full_now_and_then() {
    let seeds = seeds(rounds(4));
    let refused: Option<Vec<u64>> = seeds.into_iter().map(run_all).collect();
    if let Some(refused) = refused {
        println!("refused for want of space: {refused:?}");
        assert!(refused.iter().sum::<u64>() > 0, "it was never full");
    }
}
