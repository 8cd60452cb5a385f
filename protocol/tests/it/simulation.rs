//! Random schedules of a hub and some replicas of the model: programs edit,
//! batches and changes go over streams that are cut anywhere (I5). Afterwards
//! everybody has the same tree (I1), and no content is gone that nobody meant to
//! remove (I2).
//!
//! `CAIRN_SEEDS=n` runs `n` seeds, `CAIRN_SEED=x` that one only.

use cairn_protocol::merge::{Place, Safeguards};
use cairn_protocol::session::{Batch, BatchAssembly, Incoming, Outgoing};
use cairn_protocol::testing::{Ack, Hub, ModelReplica, Oracle, ReplicaSafeguards};
use cairn_protocol::wire::{Ext, FrameReader, Limits, Message, PushAck};
use cairn_protocol::{
    Chain, Cursor, Data, Edit, Epoch, FRAME_MAX, Meta, Name, NodeId, NodeKind, ReplicaTag, Scope,
    Timestamp,
};

/// A small reproducible generator (`SplitMix64`).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        (!all.is_empty()).then(|| all[self.below(all.len())].clone())
    }
}

/// Which safeguards are on.
#[derive(Clone, Copy)]
struct Switches {
    hub: Safeguards,
    exactly_once: bool,
    replica: ReplicaSafeguards,
}

const ALL: Switches = Switches {
    hub: Safeguards::ALL,
    exactly_once: true,
    replica: ReplicaSafeguards::ALL,
};

struct World {
    rng: Rng,
    hub: Hub,
    replicas: Vec<ModelReplica>,
    oracle: Oracle,
    contents: u64,
    /// How often programs do what: a schedule that does some things only finds
    /// what one that does everything hides.
    swarm: Vec<Do>,
    /// The last batch of each replica that the hub has committed.
    pushed: Vec<Option<(u64, Vec<Edit>)>>,
    /// What happened, for who has to find out why.
    trace: Vec<String>,
}

/// What a program does.
#[derive(Clone, Copy)]
enum Do {
    Create,
    Mkdir,
    Write,
    Link,
    Unlink,
    Rename,
    RenameDir,
    Exchange,
    Chmod,
}

impl Do {
    const ALL: [Self; 9] = [
        Self::Create,
        Self::Mkdir,
        Self::Write,
        Self::Link,
        Self::Unlink,
        Self::Rename,
        Self::RenameDir,
        Self::Exchange,
        Self::Chmod,
    ];
}

/// Why a schedule failed.
type Failure = String;

impl World {
    fn new(seed: u64, on: Switches) -> Self {
        let mut rng = Rng(seed);
        let tags: Vec<ReplicaTag> = (1..=1 + rng.below(5) as u64).map(ReplicaTag).collect();
        let mut swarm = vec![Do::Create, Do::Write];
        for what in Do::ALL {
            swarm.extend(std::iter::repeat_n(what, rng.below(4)));
        }
        Self {
            rng,
            swarm,
            hub: Hub::with(on.hub, on.exactly_once),
            pushed: vec![None; tags.len()],
            replicas: (tags.into_iter())
                .map(|tag| ModelReplica::new(tag, on.replica))
                .collect(),
            oracle: Oracle::default(),
            contents: 0,
            trace: Vec::new(),
        }
    }

    fn content(&mut self) -> Data {
        self.contents += 1;
        let bytes = self.contents.to_string().into_bytes().into();
        Data::Inline { bytes }
    }

    fn meta(&mut self) -> Meta {
        Meta {
            mode: [0o644, 0o600, 0o755][self.rng.below(3)],
            uid: u32::try_from(self.rng.below(3)).unwrap(),
            gid: 0,
            mtime: Timestamp::EPOCH,
            btime: Timestamp::EPOCH,
        }
    }

    fn node(&mut self, who: usize, kind: NodeKind) -> Option<NodeId> {
        let all = self.replicas[who].local().live();
        let all: Vec<NodeId> = all.filter(|(_, k)| *k == kind).map(|(n, _)| n).collect();
        self.rng.pick(&all)
    }

    fn place(&mut self, who: usize) -> Place {
        let dir = self.node(who, NodeKind::Dir).unwrap_or(NodeId::ROOT);
        let name = [b"a", b"b", b"c", b"d"][self.rng.below(4)];
        (dir, Name::new(name).unwrap())
    }

    fn used(&mut self, who: usize) -> Option<Place> {
        let all = self.replicas[who].local().names();
        let all: Vec<Place> = all.map(|(place, _)| place.clone()).collect();
        self.rng.pick(&all)
    }

    /// One edit of a program, which may be refused.
    fn edit(&mut self, who: usize) -> Option<()> {
        let before = self.replicas[who].local().clone();
        let ended = match self.rng.pick(&self.swarm.clone())? {
            Do::Create => {
                let (place, data, meta) = (self.place(who), self.content(), self.meta());
                self.trace.push(format!("{who} create {place:?} {data:?}"));
                let made =
                    self.replicas[who].create(&place, NodeKind::File, Some(data.clone()), meta);
                made.ok()?;
                self.oracle.written(&data, None);
                None
            }
            Do::Mkdir => {
                let (place, meta) = (self.place(who), self.meta());
                self.trace.push(format!("{who} mkdir {place:?}"));
                self.replicas[who]
                    .create(&place, NodeKind::Dir, None, meta)
                    .ok()?;
                None
            }
            Do::Write => {
                let (node, data) = (self.node(who, NodeKind::File)?, self.content());
                self.trace.push(format!("{who} write {node} {data:?}"));
                self.replicas[who].write(node, data.clone()).ok()?;
                self.oracle.written(&data, before.content(node));
                None
            }
            Do::Link => {
                let (node, place) = (self.node(who, NodeKind::File)?, self.place(who));
                self.trace.push(format!("{who} link {node} {place:?}"));
                self.replicas[who].link(node, &place).ok()?;
                None
            }
            Do::Unlink => {
                let place = self.used(who)?;
                self.trace.push(format!("{who} unlink {place:?}"));
                self.replicas[who].unlink(&place).ok()?
            }
            Do::Rename => {
                let (from, to) = (self.used(who)?, self.place(who));
                self.trace.push(format!("{who} rename {from:?} {to:?}"));
                self.replicas[who].rename(&from, &to).ok()?
            }
            Do::Exchange => {
                let (a, b) = (self.used(who)?, self.used(who)?);
                self.trace.push(format!("{who} exchange {a:?} {b:?}"));
                self.replicas[who].exchange(&a, &b).ok()?;
                None
            }
            Do::RenameDir => {
                // Directories into directories, where circles come from.
                let (dir, to) = (self.node(who, NodeKind::Dir)?, self.place(who));
                let mut names = before.names().filter(|(_, node)| *node == dir);
                let from = names.next()?.0.clone();
                self.trace.push(format!("{who} rename {from:?} {to:?}"));
                self.replicas[who].rename(&from, &to).ok()?
            }
            Do::Chmod => {
                let all: Vec<_> = before.live().collect();
                let (node, meta) = (self.rng.pick(&all)?.0, self.meta());
                self.replicas[who].set_meta(node, meta).ok()?;
                None
            }
        };
        if let Some(node) = ended {
            self.oracle.removed(before.content(node));
        }
        Some(())
    }

    /// Sends messages over a stream that may be cut anywhere. Returns those that
    /// arrive.
    fn carry(&mut self, messages: Vec<Message>, lossy: bool) -> Vec<Message> {
        let mut stream = Vec::new();
        for message in messages {
            stream.extend_from_slice(&message.to_frame(0).encode());
        }
        if lossy && self.rng.below(10) < 3 {
            stream.truncate(self.rng.below(stream.len() + 1));
        }
        let mut reader = FrameReader::new(FRAME_MAX);
        let mut arrived = Vec::new();
        for part in stream.chunks(1 + self.rng.below(500)) {
            reader.push(part);
            while let Some(frame) = reader.next().unwrap() {
                arrived.extend(Message::from_frame(&frame).unwrap());
            }
        }
        arrived
    }

    /// Pushes what there is to push. What goes over the wire may be lost.
    fn push(&mut self, who: usize, lossy: bool) -> Result<(), Failure> {
        let Some((number, edits)) = self.replicas[who].push() else {
            return Ok(());
        };
        let edits = edits.to_vec();
        self.trace.push(format!("{who} push {number}: {edits:?}"));
        let batch = Batch {
            number,
            seen: cursor(self.replicas[who].cursor()),
            edits,
            chunks: Vec::new(),
        };
        let parts = batch.messages(LIMITS).unwrap();
        let parts = parts.into_iter().map(Message::from).collect();
        let Some(batch) = assemble(self.carry(parts, lossy)) else {
            return Ok(());
        };
        let tag = ReplicaTag(who as u64 + 1);
        let ack = self.hub.push(tag, batch.number, &batch.edits);
        let ack = ack.map_err(|error| format!("push of {who}: {error:?}"))?;
        self.trace.push(format!("  {:?}", ack.outcomes));
        self.hub.tree().check().map_err(|e| format!("hub: {e}"))?;
        self.pushed[who] = Some((batch.number, batch.edits));
        self.feed(who, Some(&ack), lossy);
        Ok(())
    }

    /// Sends a replica what the hub has committed, and perhaps an answer. They
    /// count if all of it arrives.
    fn feed(&mut self, who: usize, ack: Option<&Ack>, lossy: bool) {
        let changes = self.hub.changes_since(self.replicas[who].cursor());
        let mut sender = Outgoing::new(1, LIMITS);
        let mut messages: Vec<Message> = ack.map(answer).into_iter().collect();
        let changes = sender.changes(changes).unwrap();
        messages.extend(changes.into_iter().map(Message::from));
        messages.push(sender.cut(cursor(self.hub.head())).into());
        let arrived = self.carry(messages, lossy);
        let mut receiver = Incoming::new(1);
        let (mut ack, mut staged) = (None, Vec::new());
        for message in arrived {
            match message {
                Message::PushAck(answer) => ack = Some(answered(answer)),
                Message::Changes(message) => staged.extend(receiver.changes(message).unwrap()),
                Message::Cut(cut) => {
                    let head = receiver.cut(&cut).unwrap().seq;
                    match ack {
                        Some(ack) => self.replicas[who].acknowledge(head, &staged, &ack),
                        None => self.replicas[who].follow(head, &staged),
                    }
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// A batch comes again, late. Nothing changes by it (I3).
    fn push_again(&mut self, who: usize) -> Result<(), Failure> {
        let Some((batch, edits)) = self.pushed[who].clone() else {
            return Ok(());
        };
        let before = self.hub.clone();
        let again = self.hub.push(ReplicaTag(who as u64 + 1), batch, &edits);
        again.map_err(|error| format!("push of {who} again: {error:?}"))?;
        if self.hub.tree() == before.tree() && self.hub.head() == before.head() {
            return Ok(());
        }
        Err(format!(
            "batch {batch} of replica {who} took effect twice (I3)"
        ))
    }

    fn step(&mut self) -> Result<(), Failure> {
        let who = self.rng.below(self.replicas.len());
        match self.rng.below(10) {
            0..6 => {
                let _ = self.edit(who);
            }
            6..8 => self.push(who, true)?,
            8 if self.rng.below(3) == 0 => self.push_again(who)?,
            _ => {
                self.trace.push(format!("{who} follows"));
                self.feed(who, None, true);
            }
        }
        let local = self.replicas[who].local();
        local.check().map_err(|e| format!("replica {who}: {e}"))
    }

    /// Everybody pushes what is left and follows the hub.
    fn settle(&mut self) -> Result<(), Failure> {
        for _ in 0..4 {
            for who in 0..self.replicas.len() {
                self.push(who, false)?;
                self.push(who, false)?;
            }
        }
        for who in 0..self.replicas.len() {
            self.feed(who, None, false);
            if !self.replicas[who].is_clean() {
                return Err(format!("replica {who} still has something to push"));
            }
            if self.replicas[who].local() != self.hub.tree() {
                return Err(format!("replica {who} has another tree than the hub (I1)"));
            }
        }
        match self.oracle.lost(self.hub.tree()).as_slice() {
            [] => Ok(()),
            lost => Err(format!("lost updates (I2): {lost:?}")),
        }
    }
}

/// Little of everything, so that most things take several messages.
const LIMITS: Limits = Limits {
    entries: 3,
    edits: 2,
    ..Limits::OURS
};

fn cursor(seq: u64) -> Cursor {
    Cursor {
        epoch: Epoch([1; 16]),
        seq,
        chain: Chain::GENESIS,
        scope: Scope::ALL,
    }
}

/// The batch of these messages, if they are all of it.
fn assemble(messages: Vec<Message>) -> Option<Batch> {
    let mut assembly = None;
    for message in messages {
        let Message::Push(push) = message else {
            panic!("{message:?}");
        };
        let assembly = assembly.get_or_insert_with(|| BatchAssembly::new(&push, LIMITS));
        if let Some(batch) = assembly.take(push).unwrap() {
            return Some(batch.batch);
        }
    }
    None
}

fn answer(ack: &Ack) -> Message {
    let outcomes = ack.outcomes.iter().cloned();
    let outcomes = outcomes.map(|(edit, outcome)| (u32::try_from(edit).unwrap(), outcome));
    Message::from(PushAck {
        batch: ack.batch,
        seq: ack.seq,
        chain: Chain::GENESIS,
        outcomes: outcomes.collect::<Vec<_>>().try_into().ok().unwrap(),
        ext: Ext::default(),
    })
}

fn answered(message: PushAck) -> Ack {
    let outcomes = message.outcomes.into_vec().into_iter();
    Ack {
        batch: message.batch,
        seq: message.seq,
        outcomes: outcomes.map(|(edit, o)| (edit as usize, o)).collect(),
    }
}

/// Runs a schedule. On failure, says why and what happened.
fn schedule(seed: u64, on: Switches) -> Result<(), (Failure, Vec<String>)> {
    let mut world = World::new(seed, on);
    let mut run = || {
        for _ in 0..40 + world.rng.below(80) {
            world.step()?;
        }
        world.settle()
    };
    run().map_err(|why| (why, world.trace))
}

pub(crate) fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |key: &str| std::env::var(key).ok().and_then(|v| v.parse::<u64>().ok());
    match number("CAIRN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CAIRN_SEEDS").unwrap_or(default),
    }
}

#[test]
fn i1_i2_i3_i5_i11_random_schedules_converge_and_lose_nothing() {
    for seed in seeds(2_000) {
        if let Err((why, trace)) = schedule(seed, ALL) {
            for line in trace {
                println!("{line}");
            }
            panic!("CAIRN_SEED={seed}: {why}");
        }
    }
}

/// How many of some schedules fail in this way with a safeguard switched off.
fn failures(on: Switches, how: &str) -> usize {
    let outcomes = (0..1_500).map(|seed| schedule(seed, on));
    let failed = outcomes.filter(|o| o.as_ref().is_err_and(|(why, _)| why.contains(how)));
    let count = failed.count();
    println!("{count} of 1500 schedules fail: {how}");
    count
}

#[test]
fn without_the_version_of_removed_content_updates_are_lost() {
    let mut on = ALL;
    on.hub.data_base = false;
    assert!(failures(on, "I2") > 0);
}

#[test]
fn without_the_intent_to_remove_updates_are_lost() {
    let mut on = ALL;
    on.hub.was_last = false;
    assert!(failures(on, "I2") > 0);
}

#[test]
fn without_the_check_for_circles_trees_break() {
    let mut on = ALL;
    on.hub.cycle = false;
    assert!(failures(on, "") > 0);
}

#[test]
fn without_exactly_once_batches_take_effect_twice() {
    let mut on = ALL;
    on.exactly_once = false;
    assert!(failures(on, "I3") > 0);
}

#[test]
fn without_frozen_bases_updates_are_lost() {
    let mut on = ALL;
    on.replica.frozen_base = false;
    assert!(failures(on, "I2") > 0);
}

#[test]
fn without_the_base_of_the_acknowledgement_updates_are_lost() {
    let mut on = ALL;
    on.replica.ack_base = false;
    assert!(failures(on, "I2") > 0);
}

/// Edits that no replica in its right mind makes, of nodes that are, were and
/// never have been.
fn lies(rng: &mut Rng, hub: &Hub) -> Vec<Edit> {
    let known: Vec<NodeId> = hub.tree().live().map(|(node, _)| node).collect();
    let node = |rng: &mut Rng| match rng.below(3) {
        0 => NodeId {
            replica: ReplicaTag(1),
            counter: rng.next() % 12,
        },
        _ => rng.pick(&known).unwrap(),
    };
    let name = |rng: &mut Rng| Name::new([b"a", b"b", b"c"][rng.below(3)]).unwrap();
    let mut edits = Vec::new();
    for _ in 0..rng.below(8) {
        let about = node(rng);
        let ver = rng.next() % 8;
        let maybe = if rng.below(3) > 0 {
            Some(node(rng))
        } else {
            None
        };
        let edit = match rng.below(8) {
            0..2 => {
                let place = (node(rng), name(rng));
                let about = NodeId {
                    replica: ReplicaTag(1),
                    counter: rng.next() % 12,
                };
                edits.push(Edit::New {
                    node: about,
                    kind: [NodeKind::File, NodeKind::Dir][rng.below(3).min(1)],
                });
                Edit::Name {
                    was: hub.tree().at(&place),
                    parent: place.0,
                    name: place.1,
                    node: Some(about),
                }
            }
            2 => Edit::Data {
                node: about,
                base: ver,
                data: Data::Inline {
                    bytes: vec![0; rng.below(3)].into(),
                },
            },
            3 => Edit::Drop {
                node: about,
                data_base: ver,
            },
            _ => {
                let place = (about, name(rng));
                let honest = rng.below(2) == 0;
                Edit::Name {
                    was: if honest { hub.tree().at(&place) } else { maybe },
                    parent: place.0,
                    name: place.1,
                    node: if rng.below(3) > 0 {
                        Some(node(rng))
                    } else {
                        None
                    },
                }
            }
        };
        edits.push(edit);
    }
    edits
}

#[test]
fn i11_a_replica_that_lies_does_not_break_the_tree() {
    let (mut taken, mut refused) = (0, 0);
    for seed in seeds(3_000) {
        let mut rng = Rng(seed);
        let mut hub = Hub::default();
        let mut batch = 1;
        for _ in 0..30 {
            let edits = lies(&mut rng, &hub);
            let before = hub.clone();
            if hub.push(ReplicaTag(1), batch, &edits).is_ok() {
                (batch, taken) = (batch + 1, taken + 1);
            } else {
                refused += 1;
                assert!(hub.tree() == before.tree() && hub.head() == before.head());
            }
            let broken = hub.tree().check();
            assert_eq!(broken, Ok(()), "CAIRN_SEED={seed}, after {edits:?}");
        }
    }
    println!("{taken} batches taken, {refused} refused");
    // Neither is everything taken nor everything refused.
    assert!(
        taken > refused / 20 && refused > taken / 20,
        "{taken}, {refused}"
    );
}

/// A seed that fails has to fail again.
#[test]
fn a_seed_gives_the_same_schedule_each_time() {
    for seed in 0..50 {
        let trace = || {
            let mut world = World::new(seed, ALL);
            for _ in 0..60 {
                world.step().unwrap();
            }
            world.settle().unwrap();
            world.trace
        };
        assert_eq!(trace(), trace());
    }
}
