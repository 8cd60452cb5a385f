//! Text forms: what is printed can be given back on a command line.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use cairn_protocol::{Chain, ChunkHash, Cursor, Epoch, NodeId, ReplicaTag, Scope};
use proptest::prelude::*;

fn survives<T: Display + FromStr<Err: Debug> + PartialEq + Debug>(value: &T) {
    assert_eq!(&value.to_string().parse::<T>().unwrap(), value);
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (
        any::<[u8; 16]>(),
        any::<u64>(),
        any::<[u8; 16]>(),
        any::<[u8; 8]>(),
    )
        .prop_map(|(epoch, seq, chain, scope)| Cursor {
            epoch: Epoch(epoch),
            seq,
            chain: Chain(chain),
            scope: Scope(scope),
        })
}

proptest! {
    #[test]
    fn a_cursor_survives_its_text(cursor in cursor()) {
        survives(&cursor);
        let encoded = postcard::to_stdvec(&cursor).unwrap();
        prop_assert_eq!(postcard::from_bytes(&encoded), Ok(cursor));
    }

    #[test]
    fn ids_and_hashes_survive_their_text(tag in any::<u64>(), counter in any::<u64>(), hash in any::<[u8; 32]>()) {
        survives(&NodeId { replica: ReplicaTag(tag), counter });
        survives(&ReplicaTag(tag));
        survives(&ChunkHash::from_bytes(hash));
    }

    #[test]
    fn i12_any_text_is_a_cursor_or_an_error(text in "[0-9a-f:+ é]{0,120}", cut in any::<prop::sample::Index>(), cursor in cursor()) {
        if let Ok(cursor) = text.parse::<Cursor>() {
            survives(&cursor);
        }
        let text = cursor.to_string();
        prop_assert!(text[..cut.index(text.len())].parse::<Cursor>().is_err());
        for more in ["0", ":", " "] {
            let longer = text.clone() + more;
            prop_assert!(longer.parse::<Cursor>().is_err());
        }
    }
}

#[test]
fn the_text_of_a_cursor_is_pinned() {
    let cursor = Cursor {
        epoch: Epoch([1; 16]),
        seq: 42,
        chain: Chain::GENESIS,
        scope: Scope::ALL,
    };
    let text = format!(
        "{}:42:{}:{}",
        "01".repeat(16),
        "00".repeat(16),
        "00".repeat(8)
    );
    assert_eq!(cursor.to_string(), text);
}
