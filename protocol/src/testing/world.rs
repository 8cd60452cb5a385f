//! A hub and some replicas under a random schedule, with everything that goes
//! wrong between them: sessions over streams that are split, delayed, reordered
//! between lanes and cut at any byte; crashes before and after any action; lost
//! answers; connections of which one side does not know that they are over;
//! clocks that jump; chunks that are damaged on their way; hubs that were restored
//! from a backup.
//!
//! One thread, one seed, no clock: a seed gives the same schedule each time. In
//! *safety* mode everything goes wrong and the laws are checked after each step.
//! In *liveness* mode nothing does, and everybody has to come to rest with one
//! tree, and then to be silent.

use std::collections::BTreeSet;
use std::time::Duration;

use super::end::End;
use super::oracle::Oracle;
use super::pipe::Pipe;
use super::rng::Rng;
use super::subject::{HubSubject, ReplicaSubject};
use super::workload::{Do, Workload};
use crate::cursor::Epoch;
use crate::id::ReplicaTag;
use crate::session::{
    ClientConfig, ClientSession, Command, Ended, Event, HubConfig, HubSession, Input, Offer,
};
use crate::wire::{Code, Hydrate, Limits, Token};

/// Why a schedule failed.
pub type Failure = String;

/// What may go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Connections are cut, and processes crash.
    pub crashes: bool,
    /// Bytes of chunks are changed.
    pub damage: bool,
    /// Clocks jump.
    pub jumps: bool,
    /// The hub is restored from a backup.
    pub rollback: bool,
}

/// One connection. An end may be gone while the other does not know it.
#[derive(Debug)]
struct Connection {
    who: usize,
    client: Option<End<ClientSession>>,
    hub: Option<End<HubSession>>,
    up: Pipe,
    down: Pipe,
    made_at: Duration,
    /// Fences that were not passed.
    fences: BTreeSet<u64>,
}

/// Something that can happen next at a connection.
#[derive(Clone, Copy, Debug)]
enum Can {
    ClientWorks(usize),
    HubWorks(usize),
    ClientReceives(usize),
    HubReceives(usize),
}

/// A hub, its replicas, and the connections between them.
#[derive(Debug)]
pub struct World<H: HubSubject, R> {
    rng: Rng,
    now: Duration,
    hub: H,
    replicas: Vec<R>,
    connections: Vec<Connection>,
    workload: Workload,
    oracle: Oracle,
    faults: Faults,
    limits: Limits,
    backup: Option<H::Backup>,
    damaged: bool,
    /// Stands for everything that happened.
    trace: blake3::Hasher,
    /// What happened, for who has to find out why.
    story: Option<Vec<String>>,
}

impl<H: HubSubject, R: ReplicaSubject> World<H, R> {
    /// The world of a seed.
    pub fn new(seed: u64, tell: bool) -> Self {
        let mut rng = Rng(seed);
        let tags = (1..=1 + rng.below(5) as u64).map(ReplicaTag);
        let replicas = tags.map(R::create).collect();
        let faults = Faults {
            crashes: !rng.once_in(4),
            damage: rng.once_in(4),
            jumps: rng.once_in(3),
            rollback: rng.once_in(6),
        };
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
        Self {
            workload: Workload::new(&mut rng),
            rng,
            now: Duration::ZERO,
            hub: H::create(Epoch([1; 16])),
            replicas,
            connections: Vec::new(),
            oracle: Oracle::default(),
            faults,
            limits,
            backup: None,
            damaged: false,
            trace: blake3::Hasher::new(),
            story: tell.then(Vec::new),
        }
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
        self.settle()
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(what());
        }
    }

    // What happens.

    fn step(&mut self) -> Result<(), Failure> {
        match self.rng.below(24) {
            0..4 => {
                let who = self.rng.below(self.replicas.len());
                self.edit(who)?;
            }
            4 => self.connect_somebody(),
            5 => self.fault(),
            6 if self.rng.once_in(4) => self.fence(),
            _ => self.happen()?,
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
        let (now, rng) = (self.now, &mut self.rng);
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
        let now = self.now;
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
        let before = self.replicas[who].view();
        let Some(what) = self.workload.next(&mut self.rng, &before) else {
            return Ok(());
        };
        let done = self.replicas[who].edit(&what);
        self.tell(|| format!("{who}: {} -> {done:?}", brief(&what)));
        let Ok(ended) = done else {
            return Ok(());
        };
        self.trace.update(brief(&what).as_bytes());
        let after = self.replicas[who].view();
        match &what {
            Do::Create(place, ..) => {
                let new = after.at(place).and_then(|node| after.content(node));
                if let Some(new) = new {
                    self.oracle.written(new, None);
                }
            }
            Do::Write(node, _) => {
                if let Some(new) = after.content(*node) {
                    self.oracle.written(new, before.content(*node));
                }
            }
            _ => {}
        }
        if let Some(node) = ended {
            self.oracle.removed(before.content(node));
        }
        after
            .check()
            .map_err(|e| format!("replica {who}: {e} (I11)"))
    }

    fn connect_somebody(&mut self) {
        let who = self.rng.below(self.replicas.len());
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
        let replica = &self.replicas[who];
        let (start, last_batch, last_batch_digest) = replica.start();
        let offer = Offer {
            limits: self.limits,
            ..Offer::OURS
        };
        let config = ClientConfig {
            workspace: [7; 16],
            replica: ReplicaTag(who as u64 + 1),
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
        let client = End::new(client, replica.store(), &mut up);
        let config = HubConfig {
            replica: ReplicaTag(0xb),
            agent: "simulation".to_owned(),
            offer: Offer::OURS,
        };
        let hub = HubSession::new(self.now, config);
        let hub = End::new(hub, self.hub.connect(), &mut down);
        self.tell(|| format!("{who} connects at {start:?}, last batch {last_batch}"));
        self.connections.push(Connection {
            who,
            client: Some(client),
            hub: Some(hub),
            up,
            down,
            made_at: self.now,
            fences: BTreeSet::new(),
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

    // What goes wrong.

    fn fault(&mut self) {
        let at = self.rng.below(self.connections.len());
        match self.rng.below(7) {
            0..3 if self.faults.crashes => self.cut(at),
            3 if self.faults.crashes => {
                let who = self.rng.below(self.replicas.len());
                self.crash(who);
            }
            4 if self.faults.crashes && self.rng.once_in(3) => self.crash_hub(),
            5 if self.faults.damage => {
                if let Some(c) = self.connections.get_mut(at) {
                    let pipe = if self.rng.once_in(2) {
                        &mut c.up
                    } else {
                        &mut c.down
                    };
                    pipe.corrupt(&mut self.rng);
                    self.damaged = true;
                    self.tell(|| format!("damage at {at}"));
                }
            }
            6 if self.faults.jumps => {
                let seconds = self.rng.below(60) as u64;
                self.now += Duration::from_secs(seconds);
                self.tell(|| format!("{seconds} s pass"));
                self.tick();
            }
            4 if self.faults.rollback => self.roll_back(),
            _ => {}
        }
    }

    /// A connection ends for one side or both, anywhere in what is on its way.
    fn cut(&mut self, at: usize) {
        let Some(c) = self.connections.get_mut(at) else {
            return;
        };
        let side = self.rng.below(3);
        if side != 1 {
            c.client = None;
            c.up.cut(&mut self.rng);
        }
        if side != 0 {
            c.hub = None;
            c.down.cut(&mut self.rng);
        }
        self.tell(|| format!("cut {at}, side {side}"));
    }

    fn crash(&mut self, who: usize) {
        for c in self.connections.iter_mut().filter(|c| c.who == who) {
            if c.client.take().is_some() {
                c.up.cut(&mut self.rng);
            }
        }
        self.replicas[who].crash();
        self.tell(|| format!("{who} crashes"));
    }

    fn crash_hub(&mut self) {
        for c in &mut self.connections {
            if c.hub.take().is_some() {
                c.down.cut(&mut self.rng);
            }
        }
        self.hub.crash();
        self.tell(|| "the hub crashes".to_owned());
    }

    fn roll_back(&mut self) {
        match self.backup.take() {
            None => self.backup = self.hub.backup(),
            Some(backup) => {
                self.crash_hub();
                self.hub.restore(backup);
                self.tell(|| "the hub is what it was".to_owned());
            }
        }
    }

    // What has to hold.

    /// Takes away what is over, and looks at why.
    fn reap(&mut self) -> Result<(), Failure> {
        let mut why = Vec::new();
        for c in &mut self.connections {
            let now = self.now;
            if let Some(end) = &mut c.client {
                let mut halted = false;
                for event in end.events.drain(..) {
                    halted |= matches!(event, Event::Halted { .. });
                    if let Event::Fenced { id, .. } = event {
                        c.fences.remove(&id);
                    }
                }
                if halted {
                    end.command(now, Command::Proceed, &mut c.up);
                }
            }
            if let Some(end) = &mut c.hub {
                end.events.clear();
            }
            if let Some(end) = c.client.take_if(|end| end.ended.is_some()) {
                why.extend(end.ended);
            }
            if let Some(end) = c.hub.take_if(|end| end.ended.is_some()) {
                why.extend(end.ended);
            }
        }
        self.connections
            .retain(|c| c.client.is_some() || c.hub.is_some());
        why.iter().try_for_each(|ended| self.may_end(ended))?;
        for ended in why {
            self.tell(|| format!("ended: {ended}"));
        }
        Ok(())
    }

    /// Peers that keep the rules find no fault with each other.
    fn may_end(&self, ended: &Ended) -> Result<(), Failure> {
        let quiet = ["silent", "who it is"];
        let for_time = ended.code == Code::STATE && quiet.iter().any(|q| ended.detail.contains(q));
        let lost = self.faults.rollback && [Code::FORKED, Code::EPOCH].contains(&ended.code);
        if self.damaged || for_time || lost || ended.code == Code::SHUTDOWN {
            return Ok(());
        }
        Err(format!("a session ended without reason: {ended}"))
    }

    /// A cut is the hub's tree at its commit (I4).
    fn check(&self, who: usize) -> Result<(), Failure> {
        let confirmed = self.replicas[who].confirmed();
        let Some((cursor, tree)) = confirmed.filter(|_| !self.faults.rollback) else {
            return Ok(());
        };
        if self.hub.view_at(cursor.seq).is_some_and(|hub| hub != tree) {
            let seq = cursor.seq;
            return Err(format!("replica {who} has another tree at {seq} (I4)"));
        }
        Ok(())
    }

    /// Nothing goes wrong any more: everybody comes to rest with one tree.
    fn settle(&mut self) -> Result<(), Failure> {
        self.tell(|| "now nothing goes wrong".to_owned());
        let (from, mut steps) = (self.now, 0);
        loop {
            for who in 0..self.replicas.len() {
                self.connect(who);
            }
            if self.can().is_empty() && self.differences().is_none() {
                break;
            }
            self.happen()?;
            self.reap()?;
            steps += 1;
            let late = self.now.saturating_sub(from) > Duration::from_secs(600);
            if late || steps > 200_000 {
                let what = self.differences().unwrap_or_default();
                return Err(format!("no rest after {steps} steps: {what}"));
            }
        }
        self.is_silent()?;
        if let Some(what) = self.differences() {
            return Err(what);
        }
        if self
            .connections
            .iter()
            .any(|c| c.client.is_some() && !c.fences.is_empty())
        {
            return Err("a fence is not passed".to_owned());
        }
        for (who, replica) in self.replicas.iter().enumerate() {
            replica.check().map_err(|e| format!("replica {who}: {e}"))?;
        }
        let tree = self.hub.view();
        tree.check().map_err(|e| format!("hub: {e} (I11)"))?;
        match self.oracle.lost(&tree).as_slice() {
            [] => Ok(()),
            lost => Err(format!("lost updates (I2): {lost:?}")),
        }
    }

    /// In what somebody differs from the hub (I1).
    fn differences(&self) -> Option<Failure> {
        let hub = self.hub.view();
        let mut replicas = self.replicas.iter().enumerate();
        replicas.find_map(|(who, replica)| {
            if !replica.is_clean() {
                return Some(format!("replica {who} has something to push"));
            }
            let same = replica.view() == hub;
            (!same).then(|| format!("replica {who} has another tree than the hub (I1)"))
        })
    }

    /// Nobody says anything any more but pings.
    fn is_silent(&mut self) -> Result<(), Failure> {
        let sent = |world: &Self| {
            let ends = world.connections.iter().map(|c| {
                let client = c.client.as_ref().map_or(0, |end| end.sent);
                client + c.hub.as_ref().map_or(0, |end| end.sent)
            });
            ends.sum::<u64>()
        };
        let before = sent(self);
        let until = self.now + Duration::from_secs(120);
        let ends: BTreeSet<Duration> = self.connections.iter().map(|c| c.made_at).collect();
        while self.now < until {
            self.happen()?;
            self.reap()?;
        }
        let after: BTreeSet<Duration> = self.connections.iter().map(|c| c.made_at).collect();
        if sent(self) != before || ends != after {
            return Err("there is traffic after everything is done".to_owned());
        }
        Ok(())
    }
}

fn brief(what: &Do) -> String {
    match what {
        Do::Create(place, content, _) => format!("create {place:?} of {}", content.len()),
        Do::Write(node, content) => format!("write {node} of {}", content.len()),
        other => format!("{other:?}"),
    }
}
