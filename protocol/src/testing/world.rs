//! A hub and some replicas under a random schedule, with everything that goes
//! wrong between them: sessions over streams that are split, delayed, reordered
//! between lanes and cut at any byte; crashes before and after any action; lost
//! answers; connections of which one side does not know that they are over;
//! clocks that jump and go back; chunks that are damaged on their way, or lost at
//! the hub; hubs that were restored from a backup; hubs that take no batches for a
//! while.
//!
//! Some worlds have *middle* hubs: replicas of the hub that are hubs for others.
//! Such a one is a client twice, of the hub above it and of its own.
//!
//! One thread, one seed, no clock: a seed gives the same schedule each time. In
//! *safety* mode everything goes wrong and the laws are checked after each step.
//! In *liveness* mode nothing does, and everybody has to come to rest with one
//! tree, and then to be silent.

mod faults;
mod laws;
mod nodes;
mod refusals;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::refusals::{Moods, Moody};
use super::end::End;
use super::laws::{Touches, renamed};
use super::oracle::Oracle;
use super::pipe::Pipe;
use super::rng::Rng;
use super::subject::{HubSubject, MiddleSubject, NoMiddle, ReplicaSubject};
use super::tree::ModelTree;
use super::workload::{Do, Workload};
use crate::cursor::{Epoch, Seq};
use crate::id::{NodeId, ReplicaTag};
use crate::session::{ClientConfig, ClientSession, Command, HubConfig, HubSession, Input, Offer};
use crate::wire::{Capabilities, Hydrate, Limits, Token};

/// Why a schedule failed.
pub type Failure = String;

/// What may go wrong.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each may go wrong without the others"
)]
pub struct Faults {
    /// Connections are cut, and processes crash.
    pub crashes: bool,
    /// Bytes of chunks are changed.
    pub damage: bool,
    /// Clocks jump.
    pub jumps: bool,
    /// The hub is restored from a backup.
    pub rollback: bool,
    /// The hub forgets what ended while somebody was away.
    pub absence: bool,
    /// The hub loses chunks, as its disk is damaged.
    pub losses: bool,
    /// Clocks go back.
    pub back: bool,
}

/// One connection. An end may be gone while the other does not know it.
#[derive(Debug)]
struct Connection {
    /// Which client, see `nodes`.
    who: usize,
    /// Which hub: the first of all, or one in the middle.
    of: usize,
    client: Option<End<ClientSession>>,
    hub: Option<End<HubSession>>,
    up: Pipe,
    down: Pipe,
    made_at: Duration,
    /// Fences that were not passed.
    fences: BTreeSet<u64>,
    /// The hub's store, if hubs have moods.
    moody: Option<Arc<Moody>>,
}

/// Something that can happen next at a connection.
#[derive(Clone, Copy, Debug)]
enum Can {
    ClientWorks(usize),
    HubWorks(usize),
    ClientReceives(usize),
    HubReceives(usize),
}

/// A hub, its replicas, perhaps hubs in the middle, and the connections between
/// them.
#[derive(Debug)]
pub struct World<H: HubSubject, R, M = NoMiddle> {
    rng: Rng,
    /// For what came to be in worlds later: seeds that were found before are the
    /// same worlds without it.
    aside: Rng,
    now: Duration,
    hub: H,
    middles: Vec<M>,
    replicas: Vec<R>,
    /// The hub of each replica: 0 for the first of all.
    homes: Vec<usize>,
    connections: Vec<Connection>,
    workload: Workload,
    oracle: Oracle,
    touches: Touches,
    /// The hub's last commit that was seen.
    head: Seq,
    faults: Faults,
    /// Hubs refuse batches now and then.
    moods: Option<Moods>,
    limits: Limits,
    capabilities: Capabilities,
    backup: Option<H::Backup>,
    damaged: bool,
    /// Stands for everything that happened.
    trace: blake3::Hasher,
    /// What happened, for who has to find out why.
    story: Option<Vec<String>>,
}

impl<H: HubSubject, R: ReplicaSubject> World<H, R> {
    /// The world of a seed, without hubs in the middle.
    pub fn new(seed: u64, tell: bool) -> Self {
        Self::with(seed, tell, 0)
    }
}

impl<H: HubSubject, R: ReplicaSubject, M: MiddleSubject> World<H, R, M> {
    /// The world of a seed, with one or two hubs in the middle.
    pub fn with_middles(seed: u64, tell: bool) -> Self {
        // From another stream, so that a seed is the same world without them.
        let mut rng = Rng(!seed);
        let mut world = Self::with(seed, tell, 1 + usize::from(rng.once_in(4)));
        for home in &mut world.homes {
            *home = rng.below(world.middles.len() + 1);
        }
        world
    }

    /// The same world with hubs that take no batches now and then.
    #[must_use]
    pub fn refusing(mut self, seed: u64) -> Self {
        self.moods = Some(Moods::new(seed));
        // Who needs a chunk that only others have, and cannot give, does not follow.
        self.faults.losses = false;
        self
    }

    fn with(seed: u64, tell: bool, middles: usize) -> Self {
        let (mut rng, mut aside) = (Rng(seed), aside(seed));
        let tags = (1..=1 + rng.below(5) as u64).map(ReplicaTag);
        let replicas: Vec<R> = tags.map(R::create).collect();
        let mut faults = Faults {
            crashes: !rng.once_in(4),
            damage: rng.once_in(4),
            jumps: rng.once_in(3),
            rollback: rng.once_in(6),
            absence: rng.once_in(3),
            losses: aside.once_in(4),
            back: false,
        };
        // What a backup has and nobody else any more is not to be had again.
        faults.losses &= !faults.rollback;
        faults.back = aside.once_in(4);
        // Little of everything in some worlds, so that most things take several
        // messages.
        let limits = if rng.once_in(2) {
            Limits {
                entries: 3,
                edits: 2,
                inline: 2_000,
                wants: 2,
                ..Limits::OURS
            }
        } else {
            Limits::OURS
        };
        let mut workload = Workload::new(&mut rng);
        if aside.once_in(2) {
            workload.add_xattrs(&mut aside);
        }
        let mut capabilities = Offer::OURS.capabilities;
        if aside.once_in(4) {
            capabilities.0 &= !Capabilities::CONFIRM.0;
        }
        Self {
            workload,
            rng,
            aside,
            now: Duration::ZERO,
            hub: H::create(Epoch([1; 16])),
            middles: nodes::middles(replicas.len(), middles),
            homes: vec![0; replicas.len()],
            replicas,
            connections: Vec::new(),
            oracle: Oracle::default(),
            touches: Touches::default(),
            head: 0,
            faults,
            moods: None,
            limits,
            capabilities,
            backup: None,
            damaged: false,
            trace: blake3::Hasher::new(),
            story: tell.then(Vec::new),
        }
    }

    /// The world that this seed was before chunks were lost, clocks went back,
    /// programs set extended attributes and answers were cuts in some: for seeds
    /// that failed then.
    #[must_use]
    pub fn as_it_was(mut self) -> Self {
        self.capabilities = Capabilities::default();
        self.faults.losses = false;
        self.faults.back = false;
        self.workload.remove_xattrs();
        self
    }

    /// What happened, if it was to be told.
    pub fn story(&self) -> &[String] {
        self.story.as_deref().unwrap_or_default()
    }

    /// Stands for everything that happened.
    pub fn trace(&self) -> [u8; 32] {
        *self.trace.finalize().as_bytes()
    }

    /// Runs the schedule: first everything goes wrong, then nothing.
    ///
    /// # Errors
    ///
    /// [`Failure`]: the law that does not hold.
    pub fn run(&mut self) -> Result<(), Failure> {
        for _ in 0..150 + self.rng.below(500) {
            self.step()?;
        }
        self.follow_refusing()?;
        self.settle()
    }

    /// Runs the steps that these bytes choose, two for each, and then lets
    /// nothing go wrong: what a fuzzer changes in one step changes no other.
    ///
    /// # Errors
    ///
    /// [`Failure`]: the law that does not hold.
    pub fn run_script(&mut self, steps: &[u8]) -> Result<(), Failure> {
        for step in steps.chunks(2) {
            let number = step
                .iter()
                .fold(1, |n: u64, byte| n << 8 | u64::from(*byte));
            self.rng = Rng(number);
            self.step()?;
        }
        self.settle()
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(what());
        }
    }

    // What happens.

    fn step(&mut self) -> Result<(), Failure> {
        self.change_mood();
        match self.rng.below(24) {
            0..4 => {
                let who = self.rng.below(self.places());
                self.edit(who)?;
            }
            4 => self.connect_somebody(),
            5 => self.fault(),
            6 if self.rng.once_in(4) => self.fence(),
            _ => self.happen()?,
        }
        if self.faults.losses && self.aside.once_in(40) {
            self.lose();
        }
        self.reap()
    }

    /// One thing that can happen does; if nothing can, time passes.
    fn happen(&mut self) -> Result<(), Failure> {
        let can = self.can();
        let Some(can) = self.rng.pick(&can) else {
            self.pass_time();
            return Ok(());
        };
        self.trace.update(format!("{can:?}").as_bytes());
        self.tell(|| format!("{can:?}"));
        let (now, rng) = (self.clock(), &mut self.rng);
        match can {
            Can::ClientWorks(at) => {
                let c = &mut self.connections[at];
                if let Some(end) = &mut c.client {
                    end.work(now, rng, &mut c.up);
                }
            }
            Can::HubWorks(at) => {
                let c = &mut self.connections[at];
                if let Some(end) = &mut c.hub {
                    end.work(now, rng, &mut c.down);
                }
            }
            Can::ClientReceives(at) => {
                let c = &mut self.connections[at];
                if let Some(end) = &mut c.client {
                    end.receive(now, rng, &mut c.down, &mut c.up);
                }
            }
            Can::HubReceives(at) => {
                let c = &mut self.connections[at];
                if let Some(end) = &mut c.hub {
                    end.receive(now, rng, &mut c.up, &mut c.down);
                }
            }
        }
        match can {
            Can::ClientWorks(at) => self.check(self.connections[at].who),
            Can::HubWorks(_) => {
                self.follow_hub();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn can(&self) -> Vec<Can> {
        let mut can = Vec::new();
        for (at, c) in self.connections.iter().enumerate() {
            if let Some(end) = &c.client {
                can.extend(end.is_busy().then_some(Can::ClientWorks(at)));
                let receives = !c.down.is_empty() || c.down.is_over();
                can.extend(receives.then_some(Can::ClientReceives(at)));
            }
            if let Some(end) = &c.hub {
                can.extend(end.is_busy().then_some(Can::HubWorks(at)));
                let receives = !c.up.is_empty() || c.up.is_over();
                can.extend(receives.then_some(Can::HubReceives(at)));
            }
        }
        can
    }

    /// What a clock shows, which may go back.
    fn clock(&mut self) -> Duration {
        if self.faults.back && self.aside.once_in(8) {
            let back = Duration::from_secs(self.aside.below(100) as u64);
            return self.now.saturating_sub(back);
        }
        self.now
    }

    /// Time passes until somebody wants to know.
    fn pass_time(&mut self) {
        let waits = self.connections.iter().flat_map(|c| {
            let client = c.client.as_ref().and_then(End::wait);
            [client, c.hub.as_ref().and_then(End::wait)]
        });
        let next = waits.flatten().min();
        self.now = next.map_or(self.now + Duration::from_secs(1), |at| at.max(self.now));
        self.tick();
    }

    fn tick(&mut self) {
        let now = self.clock();
        for c in &mut self.connections {
            if let Some(end) = &mut c.client {
                end.give(now, Input::Tick, &mut c.up);
            }
            if let Some(end) = &mut c.hub {
                end.give(now, Input::Tick, &mut c.down);
            }
        }
    }

    fn edit(&mut self, who: usize) -> Result<(), Failure> {
        let before = self.view(who);
        let Some(what) = self.workload.next(&mut self.rng, &before) else {
            return Ok(());
        };
        let done = self.edit_at(who, &what);
        self.tell(|| format!("{who}: {} -> {done:?}", brief(&what)));
        let Ok(ended) = done else {
            return Ok(());
        };
        self.trace.update(brief(&what).as_bytes());
        let after = self.view(who);
        self.note(who, &what, &before, &after);
        if let Some(node) = ended {
            self.oracle.removed(before.content(node));
        }
        if let Do::Rename(from, to) = &what {
            renamed(&before, &after, from, to).map_err(|e| format!("replica {who}: {e}"))?;
        }
        after
            .check()
            .map_err(|e| format!("replica {who}: {e} (I11)"))
    }

    /// Notes who wrote, moved and linked which contents.
    fn note(&mut self, who: usize, what: &Do, before: &ModelTree, after: &ModelTree) {
        let mut touch = |node: NodeId| self.touches.touched(who, node);
        match what {
            Do::Create(place, ..) => {
                let new = after.at(place).and_then(|node| after.content(node));
                if let Some(new) = new {
                    self.oracle.written(new, None);
                }
            }
            Do::Write(node, _) => {
                touch(*node);
                if let Some(new) = after.content(*node) {
                    self.oracle.written(new, before.content(*node));
                }
            }
            Do::Link(node, _) => touch(*node),
            Do::Rename(from, _) => before.at(from).into_iter().for_each(touch),
            Do::Exchange(a, b) => [a, b]
                .into_iter()
                .filter_map(|at| before.at(at))
                .for_each(touch),
            Do::Mkdir(..) | Do::Unlink(_) | Do::Chmod(..) | Do::SetXattr(..) => {}
        }
    }

    fn connect_somebody(&mut self) {
        let who = self.rng.below(self.clients());
        self.connect(who);
    }

    fn is_connected(&self, who: usize) -> bool {
        let mut connections = self.connections.iter();
        connections.any(|c| c.who == who && c.client.is_some())
    }

    fn connect(&mut self, who: usize) {
        if self.is_connected(who) {
            return;
        }
        let (start, last_batch, last_batch_digest) = self.start(who);
        let offer = Offer {
            limits: self.limits,
            capabilities: self.capabilities,
            ..Offer::OURS
        };
        let config = ClientConfig {
            workspace: [7; 16],
            replica: self.tag(who),
            token: Token::default(),
            agent: "simulation".to_owned(),
            offer,
            start,
            last_batch,
            last_batch_digest,
            hydrate: Hydrate::Full,
        };
        let (mut up, mut down) = (Pipe::default(), Pipe::default());
        let client = ClientSession::new(self.now, config);
        let client = End::new(client, self.store(who), &mut up);
        let config = HubConfig {
            replica: ReplicaTag(0xb),
            agent: "simulation".to_owned(),
            offer: Offer::OURS,
        };
        let hub = HubSession::new(self.now, config);
        let of = self.hub_of(who);
        let store = self.hub_store(of);
        let over = self.moods.as_ref().map(|moods| moods.over(store.clone()));
        let store = over.clone().map_or(store, |over| over as Arc<_>);
        let hub = End::new(hub, store, &mut down);
        self.tell(|| format!("{who} connects at {start:?}, last batch {last_batch}"));
        self.connections.push(Connection {
            who,
            of,
            client: Some(client),
            hub: Some(hub),
            up,
            down,
            made_at: self.now,
            fences: BTreeSet::new(),
            moody: over,
        });
    }

    /// Somebody wants to know when everything is pushed and here.
    fn fence(&mut self) {
        let (at, now) = (self.rng.below(self.connections.len()), self.now);
        let Some(c) = self.connections.get_mut(at) else {
            return;
        };
        if let Some(end) = &mut c.client {
            let id = self.rng.next();
            c.fences.insert(id);
            end.command(now, Command::Fence { id }, &mut c.up);
            self.tell(|| format!("fence {id} at {at}"));
        }
    }
}

/// The stream of a seed for what came to be in worlds later.
pub(super) fn aside(seed: u64) -> Rng {
    Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xa51d_e000)
}

/// Which content it is, and its length.
fn text(content: &[u8]) -> String {
    format!("content {}, {} bytes", content[0], content.len())
}

fn brief(what: &Do) -> String {
    match what {
        Do::Create(place, content, _) => format!("create {place:?} {}", text(content)),
        Do::Write(node, content) => format!("write {node} {}", text(content)),
        other => format!("{other:?}"),
    }
}
