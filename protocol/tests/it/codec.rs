//! The encoding of changes: it gives back what it got, and takes any bytes (I12).

use cairn_protocol::{
    Change, ChunkHash, ChunkerId, CommitHasher, Data, Edit, Entry, Extent, Manifest, Meta,
    MetaFields, Name, NodeId, NodeKind, ReplicaTag, Timestamp, XattrName,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

fn node() -> impl Strategy<Value = NodeId> {
    (any::<u64>(), any::<u64>()).prop_map(|(tag, counter)| NodeId {
        replica: ReplicaTag(tag),
        counter,
    })
}

fn name() -> impl Strategy<Value = Name> {
    vec(any::<u8>(), 1..=255).prop_filter_map("not a name", |bytes| Name::new(&bytes).ok())
}

fn xattr_name() -> impl Strategy<Value = XattrName> {
    vec(1_u8.., 1..=255).prop_map(|bytes| XattrName::new(&bytes).unwrap())
}

fn time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0_u32..1_000_000_000).prop_map(|(s, ns)| Timestamp::new(s, ns).unwrap())
}

fn meta() -> impl Strategy<Value = Meta> {
    (
        0..=Meta::MODE_MASK,
        any::<u32>(),
        any::<u32>(),
        time(),
        time(),
    )
        .prop_map(|(mode, uid, gid, mtime, btime)| Meta {
            mode,
            uid,
            gid,
            mtime,
            btime,
        })
}

fn file() -> impl Strategy<Value = Data> {
    let extent = prop_oneof![
        (any::<[u8; 32]>(), 1_u32..=524_288).prop_map(|(hash, len)| Extent::Chunk {
            hash: ChunkHash::from_bytes(hash),
            len
        }),
        (1_u64..1 << 50).prop_map(|len| Extent::Hole { len }),
    ];
    (vec(extent, 0..20), 1_u8..=3).prop_map(|(extents, chunker)| {
        let manifest = Manifest::build(&extents, |_, _| Ok::<_, ()>(())).unwrap();
        let chunker = ChunkerId::try_from(chunker).unwrap();
        Data::File {
            size: manifest.total(),
            chunker,
            manifest,
        }
    })
}

fn data() -> impl Strategy<Value = Data> {
    prop_oneof![
        file(),
        vec(any::<u8>(), 0..=4096).prop_map(|bytes| Data::Inline {
            bytes: bytes.into()
        }),
        vec(1_u8.., 1..=4095).prop_map(|target| Data::Symlink {
            target: target.into()
        }),
        Just(Data::Dir),
        any::<u64>().prop_map(|rdev| Data::Special { rdev }),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    prop_oneof![
        (node(), 0_u8..7).prop_map(|(id, kind)| Entry::Node {
            id,
            kind: NodeKind::try_from(kind).unwrap()
        }),
        (node(), data()).prop_map(|(node, data)| Entry::Data { node, data }),
        (node(), meta()).prop_map(|(node, meta)| Entry::Meta { node, meta }),
        (node(), name(), option::of(node())).prop_map(|(parent, name, node)| Entry::Name {
            parent,
            name,
            node
        }),
        (node(), xattr_name(), option::of(vec(any::<u8>(), 0..2000))).prop_map(
            |(node, name, value)| Entry::Xattr {
                node,
                name,
                value: value.map(Into::into)
            }
        ),
        node().prop_map(|node| Entry::Gone { node }),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    (any::<u64>(), entry()).prop_map(|(ver, entry)| Change { ver, entry })
}

/// An edit says what an entry says, and what its editor saw.
fn edit() -> impl Strategy<Value = Edit> {
    (entry(), any::<u64>(), 0_u8..32, option::of(node())).prop_map(|(entry, base, fields, was)| {
        match entry {
            Entry::Node { id: node, kind } => Edit::New { node, kind },
            Entry::Data { node, data } => Edit::Data { node, base, data },
            Entry::Meta { node, meta } => Edit::Meta {
                node,
                base,
                fields: MetaFields::try_from(fields).unwrap(),
                meta,
            },
            Entry::Name { parent, name, node } => Edit::Name {
                parent,
                name,
                was,
                node,
            },
            Entry::Xattr { node, name, value } => Edit::Xattr {
                node,
                name,
                base,
                value,
            },
            Entry::Gone { node } => Edit::Drop {
                node,
                data_base: base,
            },
        }
    })
}

#[test]
fn the_encoding_of_edits_is_pinned() {
    let node = NodeId::ROOT;
    let base = 300;
    let drop = Edit::Drop {
        node,
        data_base: base,
    };
    assert_eq!(postcard::to_stdvec(&drop), Ok(vec![5, 0, 1, 0xac, 2]));
    let name = Edit::Name {
        parent: node,
        name: Name::new(b"ab").unwrap(),
        was: None,
        node: Some(node),
    };
    let bytes = vec![4, 0, 1, 2, b'a', b'b', 0, 1, 0, 1];
    assert_eq!(postcard::to_stdvec(&name), Ok(bytes));
}

/// What holds for any bytes whatever.
fn decode_is_total(bytes: &[u8]) {
    if let Ok(change) = Change::decode(bytes) {
        assert_eq!(change.encode(), bytes, "one change, one encoding");
    }
}

proptest! {
    #[test]
    fn a_change_survives_its_encoding(change in change()) {
        prop_assert_eq!(Change::decode(&change.encode()), Ok(change));
    }

    #[test]
    fn edits_survive_their_encoding(edit in edit()) {
        let encoded = postcard::to_stdvec(&edit).unwrap();
        prop_assert_eq!(postcard::from_bytes(&encoded), Ok(edit));
    }

    #[test]
    fn i12_any_bytes_are_a_change_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        decode_is_total(&bytes);
    }

    #[test]
    fn i12_a_damaged_change_is_another_one_or_an_error(
        change in change(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
    ) {
        let mut bytes = change.encode();
        decode_is_total(&bytes[..cut.index(bytes.len())]);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        decode_is_total(&bytes);
    }

    #[test]
    fn i6_a_digest_names_the_changes(a in change(), b in change()) {
        let digest = |changes: &[&Change]| {
            let mut hasher = CommitHasher::new();
            for change in changes {
                hasher.push(change);
            }
            hasher.finish()
        };
        prop_assert_eq!(digest(&[&a, &b]) == digest(&[&b, &a]), a == b);
        prop_assert_ne!(digest(&[&a]), digest(&[&a, &b]));
    }
}

/// A length near 2^64 in front of three bytes: the decoder must not believe it.
#[test]
fn i12_a_length_that_is_not_there_is_not_allocated() {
    let length = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let heads: [&[u8]; 4] = [
        &[1, 1, 0, 1, 0, 1, 1],    // a file's manifest
        &[1, 1, 0, 1, 1],          // inline content
        &[1, 3, 0, 1],             // a name
        &[1, 4, 0, 1, 1, b'x', 1], // an attribute's value
    ];
    for head in heads {
        let bytes = [head, &length, b"abc"].concat();
        assert!(Change::decode(&bytes).is_err(), "{head:?}");
    }
}
