//! What programs on several replicas do at random.

use cairn_engine::{NodeKind, RenameMode};
use cairn_protocol::Data;
use cairn_protocol::testing::Oracle;
use cairn_protocol::wire::PushAck;

use super::{Client, Side, assert_equal, short};
use crate::support::{self, Rng};

/// What the programs on a replica do at random, and what they see of it.
pub(crate) struct Worker<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) oracle: &'a mut Oracle,
    pub(crate) written: &'a mut u64,
}

impl Worker<'_> {
    fn paths(client: &Client) -> (Vec<String>, Vec<String>) {
        let (mut dirs, mut files) = (vec![String::new()], Vec::new());
        let mut at = 0;
        while let Some(dir) = dirs.get(at).cloned() {
            at += 1;
            for name in client.names(&format!("{dir}/")) {
                let path = format!("{dir}/{name}");
                match client.replica.lstat(&path).unwrap().kind {
                    NodeKind::Dir => dirs.push(path),
                    _ => files.push(path),
                }
            }
        }
        (dirs, files)
    }

    fn content(client: &Client, path: &str) -> Data {
        let bytes = client.replica.read_file(path).unwrap().into();
        Data::Inline { bytes }
    }

    fn fresh(&mut self) -> Vec<u8> {
        *self.written += 1;
        format!("content {}", self.written).into_bytes()
    }

    fn removed(&mut self, client: &Client, path: &str) {
        let attr = client.replica.lstat(path).unwrap();
        if attr.kind == NodeKind::File && attr.nlink == 1 {
            self.oracle.removed(Some(&Self::content(client, path)));
        }
    }

    pub(crate) fn step(&mut self, client: &Client) {
        self.step_with(client, true);
    }

    /// The same, where directories may stay where they are.
    pub(crate) fn step_with(&mut self, client: &Client, moves: bool) {
        let (dirs, files) = Self::paths(client);
        let dir = self.rng.pick(&dirs).clone();
        let place = format!("{}/{}", self.rng.pick(&dirs), self.rng.below(4));
        let replica = &client.replica;
        let tag = client.upstream.tag().0 & 0xfff;
        let file = (!files.is_empty()).then(|| self.rng.pick(&files).clone());
        let what = self.rng.below(11);
        println!("{tag:x}: {what} {file:?} {dir:?} {place:?} {dirs:?} {files:?}");
        match (what, file) {
            (6 | 8, _) if !moves => {}
            (0 | 1, _) if !replica.exists(&place).unwrap() => {
                let bytes = self.fresh();
                replica.write_file(&place, &bytes).unwrap();
                self.oracle.written(
                    &Data::Inline {
                        bytes: bytes.into(),
                    },
                    None,
                );
            }
            (2, _) => drop(replica.mkdir(&place)),
            (3 | 4, Some(file)) => {
                let old = Self::content(client, &file);
                let bytes = self.fresh();
                replica.write_file(&file, &bytes).unwrap();
                let new = Data::Inline {
                    bytes: bytes.into(),
                };
                self.oracle.written(&new, Some(&old));
            }
            (5, Some(file)) => {
                self.removed(client, &file);
                replica.remove(&file).unwrap();
            }
            (6, _) if !dir.is_empty() => drop(replica.remove(&dir)),
            (7, Some(file)) => {
                let same = replica.exists(&place).unwrap()
                    && replica.stat(&place).unwrap().ino == replica.stat(&file).unwrap().ino;
                let over = replica.exists(&place).unwrap() && !dirs.contains(&place) && !same;
                if over {
                    self.removed(client, &place);
                }
                let renamed = replica.rename_path(&file, &place);
                assert!(!over || renamed.is_ok());
            }
            (8, _) if !dir.is_empty() => drop(replica.rename_path(&dir, &place)),
            (9, Some(file)) => drop(replica.hard_link(&file, &place)),
            (10, Some(file)) => {
                drop(replica.chmod(&file, 0o600 + self.rng.below(64) as u16));
                drop(replica.set_xattr_path(&file, b"user.x", &[self.rng.below(3) as u8]));
            }
            _ if !moves => {}
            _ => {
                let (x, y) = (self.rng.pick(&dirs).clone(), place);
                let at = |path: &str| {
                    let (parent, name) = path.rsplit_once('/')?;
                    let parent = replica.stat(format!("{parent}/")).ok()?.ino;
                    Some((parent, name.as_bytes().to_vec()))
                };
                if let (Some(x), Some(y)) = (at(&x), at(&y)) {
                    drop(replica.rename(x.0, &x.1, y.0, &y.1, RenameMode::Exchange));
                }
            }
        }
    }
}

fn schedule(seed: u64) {
    let (mut rng, mut refusals) = (Rng::new(seed), Rng::new(!seed));
    let mut side = Side::default();
    let (mut oracle, mut written) = (Oracle::default(), 0);
    let clients: Vec<Client> = (0..2 + rng.below(2)).map(|_| Client::new()).collect();
    let mut acks: Vec<Option<PushAck>> = clients.iter().map(|_| None).collect();
    for client in &clients {
        if rng.chance(80) {
            client.pull(&side, None);
        }
    }
    for _ in 0..80 {
        let who = rng.index(clients.len());
        let client = &clients[who];
        if refusals.chance(10) {
            client.refused(&side);
        }
        match rng.below(10) {
            0..=5 => {
                let (rng, oracle, written) = (&mut rng, &mut oracle, &mut written);
                Worker {
                    rng,
                    oracle,
                    written,
                }
                .step(client);
            }
            6 | 7 => {
                let pushed = client.push(&mut side);
                if let Some((edits, ack)) = &pushed {
                    let edits: Vec<_> = edits.iter().map(short).collect();
                    println!(
                        "{:x}: pushed {edits:?} {:?}",
                        client.upstream.tag().0 & 0xfff,
                        ack.outcomes
                    );
                }
                acks[who] = pushed.map(|(_, ack)| ack).filter(|_| rng.chance(70));
            }
            _ => {
                let applied = client.pull(&side, acks[who].take());
                let tag = client.upstream.tag().0 & 0xfff;
                println!("{tag:x}: pulled {applied:?} to {}", side.hub.head());
            }
        }
        support::assert_clean(&client.replica);
    }
    for _ in 0..4 {
        for client in &clients {
            client.sync(&mut side);
        }
    }
    side.hub.tree().check().unwrap();
    let all: Vec<&Client> = clients.iter().collect();
    assert_equal(&all, &side);
    assert_eq!(oracle.lost(side.hub.tree()), Vec::<Vec<u8>>::new());
}

#[test]
fn i1_i2_i4_i11_random_schedules_converge_and_lose_nothing() {
    for seed in support::seeds(40) {
        println!("seed {seed}");
        schedule(seed);
    }
}
