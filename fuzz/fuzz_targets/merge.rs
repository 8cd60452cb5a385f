//! Whatever replicas push, the hub's tree is a tree (I11); what it refuses
//! changes nothing, and what comes twice is done once (I3).
#![no_main]

use arbitrary::Arbitrary;
use cairn_protocol::testing::Hub;
use cairn_protocol::{Data, Edit, Meta, MetaFields, Name, NodeId, NodeKind, ReplicaTag, Timestamp};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Said {
    New {
        node: u8,
        dir: bool,
    },
    Data {
        node: u8,
        base: u8,
        content: u8,
    },
    Meta {
        node: u8,
        fields: u8,
        mode: u8,
    },
    Name {
        parent: u8,
        name: u8,
        was: u8,
        node: u8,
    },
    /// A name as an honest replica would say it.
    Put {
        parent: u8,
        name: u8,
        node: u8,
    },
    Drop {
        node: u8,
        base: u8,
    },
}

/// The root, or one of few nodes.
fn id(number: u8) -> NodeId {
    match number % 12 {
        0 => NodeId::ROOT,
        counter => NodeId {
            replica: ReplicaTag(1),
            counter: counter.into(),
        },
    }
}

fn maybe(number: u8) -> Option<NodeId> {
    (number % 16 < 12).then(|| id(number % 16))
}

fn name(number: u8) -> Name {
    Name::new(&[b'a' + number % 3]).unwrap()
}

fn edit(said: Said, hub: &Hub) -> Edit {
    match said {
        Said::New { node, dir } => Edit::New {
            node: id(node),
            kind: if dir { NodeKind::Dir } else { NodeKind::File },
        },
        Said::Data {
            node,
            base,
            content,
        } => Edit::Data {
            node: id(node),
            base: base.into(),
            data: Data::Inline {
                bytes: vec![content].into(),
            },
        },
        Said::Meta { node, fields, mode } => Edit::Meta {
            node: id(node),
            base: 0,
            fields: MetaFields::try_from(fields % 32).unwrap(),
            meta: Meta {
                mode: mode.into(),
                uid: 0,
                gid: 0,
                mtime: Timestamp::EPOCH,
                btime: Timestamp::EPOCH,
            },
        },
        Said::Name {
            parent,
            name: n,
            was,
            node,
        } => Edit::Name {
            parent: id(parent),
            name: name(n),
            was: maybe(was),
            node: maybe(node),
        },
        Said::Put {
            parent,
            name: n,
            node,
        } => Edit::Name {
            was: hub.tree().at(&(id(parent), name(n))),
            parent: id(parent),
            name: name(n),
            node: maybe(node),
        },
        Said::Drop { node, base } => Edit::Drop {
            node: id(node),
            data_base: base.into(),
        },
    }
}

fuzz_target!(|batches: Vec<(bool, Vec<Said>)>| {
    let mut hub = Hub::default();
    let mut numbers = [0_u64; 2];
    for (second, said) in batches.into_iter().take(64) {
        let tag = ReplicaTag(1 + u64::from(second));
        let number = &mut numbers[usize::from(second)];
        let edits: Vec<Edit> = said.into_iter().take(64).map(|s| edit(s, &hub)).collect();
        let before = hub.clone();
        match hub.push(tag, *number + 1, &edits) {
            Ok(ack) => {
                *number += 1;
                hub.tree().check().unwrap();
                let after = hub.clone();
                assert_eq!(hub.push(tag, *number, &edits), Ok(ack));
                assert!(hub.tree() == after.tree() && hub.head() == after.head());
            }
            Err(_) => assert!(hub.tree() == before.tree() && hub.head() == before.head()),
        }
    }
});
