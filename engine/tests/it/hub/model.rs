//! The hub against the model's: the same answers, the same tree, whatever
//! happens to the process.

use std::path::PathBuf;

use cairn_engine::{Hub, HubOptions, Replica};
use cairn_protocol::merge::{Place, TreeView};
use cairn_protocol::testing::{Ack, Hub as ModelHub, ModelReplica, ReplicaSafeguards};
use cairn_protocol::{Meta, Name, NodeId, NodeKind, ReplicaTag};

use super::{Client, META, hub_at, text, tree_of};
use crate::support::{Rng, assert_clean, crash_copy, place, seeds};

/// The hub and the model's, and replicas that push to both and follow the hub.
pub(super) struct World {
    pub(super) rng: Rng,
    path: PathBuf,
    pub(super) hub: Option<(Replica, Hub)>,
    model: ModelHub,
    replicas: Vec<ModelReplica>,
    written: u64,
}

impl World {
    pub(super) fn new(seed: u64, path: PathBuf) -> Self {
        let replica = |tag| ModelReplica::new(ReplicaTag(tag), ReplicaSafeguards::ALL);
        Self {
            rng: Rng::new(seed),
            hub: Some(hub_at(&path, HubOptions::default())),
            path,
            model: ModelHub::default(),
            replicas: (1..=3).map(replica).collect(),
            written: 0,
        }
    }

    pub(super) fn client(&self, who: usize) -> Client {
        Client::new(&self.hub.as_ref().unwrap().1, who as u64 + 1)
    }

    fn any(&mut self, who: usize, kind: NodeKind) -> Option<NodeId> {
        let all = self.replicas[who].local().live();
        let all: Vec<NodeId> = all.filter(|(_, k)| *k == kind).map(|(n, _)| n).collect();
        (!all.is_empty()).then(|| *self.rng.pick(&all))
    }

    fn free(&mut self, who: usize) -> Place {
        let dir = self.any(who, NodeKind::Dir).unwrap_or(NodeId::ROOT);
        let name = *self.rng.pick(&[b"a", b"b", b"c", b"d"]);
        (dir, Name::new(name).unwrap())
    }

    fn used(&mut self, who: usize) -> Option<Place> {
        let all: Vec<Place> = (self.replicas[who].local().names())
            .map(|(place, _)| place.clone())
            .collect();
        (!all.is_empty()).then(|| self.rng.pick(&all).clone())
    }

    /// One edit of a program, which may be refused.
    pub(super) fn edit(&mut self, who: usize) -> Option<()> {
        self.written += 1;
        let data = text(&self.written.to_string());
        let meta = Meta {
            mode: *self.rng.pick(&[0o644, 0o600, 0o755]),
            ..META
        };
        let what = self.rng.below(9);
        let (place, used) = (self.free(who), self.used(who));
        let file = self.any(who, NodeKind::File);
        let replica = &mut self.replicas[who];
        match what {
            0 | 1 => drop(replica.create(&place, NodeKind::File, Some(data), meta)),
            2 => drop(replica.create(&place, NodeKind::Dir, None, meta)),
            3 => drop(replica.write(file?, data)),
            4 => drop(replica.link(file?, &place)),
            5 => drop(replica.unlink(&used?)),
            6 | 7 => drop(replica.rename(&used?, &place)),
            _ => drop(replica.set_meta(file?, meta)),
        }
        Some(())
    }

    /// Pushes to both hubs, which have to answer the same.
    pub(super) fn push(&mut self, who: usize, lossy: bool) {
        let tag = ReplicaTag(who as u64 + 1);
        let Some((batch, edits)) = self.replicas[who].push() else {
            return;
        };
        let edits = edits.to_vec();
        let want = self.model.push(tag, batch, &edits).unwrap();
        let client = self.client(who);
        let ack = client.commit(batch, &edits).unwrap();
        let again = self.rng.chance(30).then(|| client.commit(batch, &edits));
        assert!(again.is_none_or(|again| again.as_ref() == Ok(&ack)), "I3");
        let got = Ack {
            batch: ack.batch,
            seq: ack.seq,
            outcomes: (ack.outcomes.iter())
                .map(|(edit, outcome)| (*edit as usize, outcome.clone()))
                .collect(),
        };
        assert_eq!(got, want);
        if !(lossy && self.rng.chance(30)) {
            self.follow(who, Some(&got));
        }
    }

    fn follow(&mut self, who: usize, ack: Option<&Ack>) {
        let client = self.client(who);
        let (changes, _, cut) = client.follow(self.replicas[who].cursor());
        match ack {
            Some(ack) => self.replicas[who].acknowledge(cut.seq, &changes, ack),
            None => self.replicas[who].follow(cut.seq, &changes),
        }
    }

    /// The process ends, in one way or another.
    fn restart(&mut self) {
        if self.rng.chance(50) {
            let copy = self.path.with_extension("copy");
            crash_copy(&self.path, &copy);
            self.hub = None;
            std::fs::remove_dir_all(&self.path).unwrap();
            std::fs::rename(&copy, &self.path).unwrap();
        }
        self.hub = None;
        self.hub = Some(hub_at(&self.path, HubOptions::default()));
    }

    /// The tree of the hub is that of the model, versions too.
    pub(super) fn compare(&self) {
        let (changes, _, cut) = self.client(0).follow(0);
        let tree = tree_of(&changes);
        assert!(tree == *self.model.tree(), "another tree than the model");
        assert_eq!(cut.seq, self.model.head());
        for (node, _) in tree.live() {
            assert_eq!(tree.data(node), self.model.tree().data(node));
            assert_eq!(tree.meta(node), self.model.tree().meta(node));
        }
        tree.check().unwrap();
    }
}

#[test]
fn the_hub_does_what_the_model_does() {
    for seed in seeds(40) {
        println!("seed {seed}");
        let (_dir, path) = place();
        let mut world = World::new(seed, path);
        for _ in 0..60 {
            let who = world.rng.index(3);
            match world.rng.below(12) {
                0..7 => drop(world.edit(who)),
                7..10 => world.push(who, true),
                10 => world.follow(who, None),
                _ if world.rng.chance(10) => world.restart(),
                _ => world.compare(),
            }
        }
        for _ in 0..4 {
            (0..3).for_each(|who| world.push(who, false));
        }
        for who in 0..3 {
            world.push(who, false);
            world.follow(who, None);
        }
        for replica in &mut world.replicas {
            if replica.is_clean() {
                assert!(replica.local() == world.model.tree(), "I1");
            }
        }
        world.compare();
        assert_clean(&world.hub.as_ref().unwrap().0);
    }
}
