//! Sessions driven by bytes, for fuzzers: any bytes mean something.

use std::sync::Arc;
use std::time::Duration;

use super::hub_store::ModelHub;
use super::pair::Side;
use super::replica::ReplicaSafeguards;
use super::replica_store::ModelClient;
use super::world::{Failure, World};
use crate::cursor::{Cursor, Epoch, Scope};
use crate::id::ReplicaTag;
use crate::session::{
    By, ClientConfig, ClientSession, HubConfig, HubSession, Input, Offer, Session,
};
use crate::wire::{
    Capabilities, Ext, FrameReader, Hello, Hydrate, Limits, Message, Role, Start, Subscribe, Text,
    Token, Welcome,
};
use crate::{Chain, limits::FRAME_MAX};

const EPOCH: Epoch = Epoch([0xe0; 16]);

/// A peer says these bytes to a session, whose store does what it is asked: the
/// first byte says whether the session is a hub's, and whether the peer has been
/// taken before. Returns whether the session took all of it.
///
/// # Panics
///
/// If what is left of the store is no tree.
pub fn hear(input: &[u8]) -> bool {
    let Some((how, stream)) = input.split_first() else {
        return true;
    };
    let (is_hub, is_known) = (how & 1 == 0, how & 2 == 0);
    if is_hub {
        let hub = ModelHub::new(EPOCH);
        let config = HubConfig {
            replica: ReplicaTag(0xb),
            agent: String::new(),
            offer: Offer::OURS,
        };
        let session = HubSession::new(Duration::ZERO, config);
        let mut side = Side::new(session, hub.connect());
        if is_known {
            say(&mut side, &hello(Role::Client).into());
            say(&mut side, &subscribe().into());
        }
        listen(&mut side, stream);
        assert_eq!(hub.tree().check(), Ok(()));
        side.ended.is_some_and(|ended| ended.by == By::Carrier)
    } else {
        let replica = ModelClient::new(ReplicaTag(9), ReplicaSafeguards::ALL);
        let session = ClientSession::new(Duration::ZERO, config());
        let mut side = Side::new(session, Arc::new(replica));
        if is_known {
            say(&mut side, &hello(Role::Hub).into());
            say(&mut side, &welcome().into());
        }
        listen(&mut side, stream);
        side.ended.is_some_and(|ended| ended.by == By::Carrier)
    }
}

fn say<S: Session>(side: &mut Side<S>, message: &Message) {
    side.hear(Duration::ZERO, message);
}

fn listen<S: Session>(side: &mut Side<S>, stream: &[u8]) {
    let mut reader = FrameReader::new(FRAME_MAX);
    reader.push(stream);
    let mut now = Duration::ZERO;
    while side.ended.is_none() {
        reader.set_max(side.session.frame_max());
        let Ok(Some(frame)) = reader.next() else {
            return side.give(now, Input::Closed);
        };
        // The lane says how much time has passed, and whether the store is stuck.
        now += Duration::from_secs(u64::from(frame.lane >> 1));
        side.is_stuck = frame.lane & 1 == 1;
        side.give(now, Input::Frame(frame));
        side.out.clear();
    }
}

/// A world whose steps these bytes choose, two for each.
///
/// # Errors
///
/// [`Failure`]: the law that does not hold.
pub fn run(script: &[u8]) -> Result<(), Failure> {
    let (seed, steps) = script.split_first().map_or((0, script), |(s, r)| (*s, r));
    let mut world: World<ModelHub, ModelClient> = World::new(seed.into(), false);
    world.run_script(steps)
}

fn hello(role: Role) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        role,
        workspace: [0xaa; 16],
        replica: ReplicaTag(9),
        token: Token::default(),
        capabilities: Capabilities(0),
        limits: Limits::OURS,
        agent: Text::default(),
        ext: Ext::default(),
    }
}

fn subscribe() -> Subscribe {
    Subscribe {
        from: Start::Nothing,
        scope: Scope::ALL,
        hydrate: Hydrate::Full,
        ext: Ext::default(),
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        epoch: EPOCH,
        head: Cursor {
            epoch: EPOCH,
            seq: 0,
            chain: Chain::GENESIS,
            scope: Scope::ALL,
        },
        capabilities: Capabilities(0),
        limits: Limits::OURS,
        last_batch: 0,
        last_batch_digest: [0; 32],
        session: 1,
        ext: Ext::default(),
    }
}

fn config() -> ClientConfig {
    ClientConfig {
        workspace: [0xaa; 16],
        replica: ReplicaTag(9),
        token: Token::default(),
        agent: String::new(),
        offer: Offer::OURS,
        start: Start::Nothing,
        last_batch: 0,
        last_batch_digest: None,
        hydrate: Hydrate::Full,
    }
}
