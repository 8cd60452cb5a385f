//! The numbers by which replicas tell each other what is wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is wrong, as a number. One that nobody here knows is kept as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Code(pub u16);

macro_rules! codes {
    ($($number:literal $name:ident $doc:literal)*) => {
        impl Code {
            $(
                #[doc = $doc]
                pub const $name: Self = Self($number);
            )*

            /// The name of the number, as SPEC.md has it.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(concat!("E_", stringify!($name))),)*
                    _ => None,
                }
            }

            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self($number)),*];
        }
    };
}

codes! {
    1 VERSION "No version of the protocol is common to both."
    2 AUTH "The token is missing or wrong."
    3 WORKSPACE "There is no such workspace."
    4 UNSUPPORTED "A message or a capability is not known, and cannot be passed over."
    5 MALFORMED "Bytes are no message, or a message contradicts itself."
    6 LIMIT "Something is larger or more than was agreed."
    7 STATE "The message is not allowed now."
    8 EPOCH "The store is another than the cursor is of."
    9 FORKED "The histories differ before the cursor."
    10 HORIZON "The cursor is older than what is remembered."
    11 SCOPE "The cursor is of another scope."
    12 BATCH_GAP "A batch is missing before this one."
    13 REPLICA_FORKED "The batch came before with other edits: two replicas have one tag."
    14 TAG_TAKEN "Another replica has this tag."
    15 CHUNK_MISSING "A chunk that is needed is not there."
    16 CHUNK_CORRUPT "The bytes of a chunk do not match its hash."
    17 NO_NODE "A node is not known."
    18 READ_ONLY "The token allows to read only."
    19 QUOTA "There is no space left for this replica."
    20 BUSY "Not now; later perhaps."
    21 HALTED "Somebody has to look at it first."
    22 INTERNAL "Something failed that the peer is not to blame for."
    23 SHUTDOWN "The peer is about to end."
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "E_{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_numbered_from_1_and_unknown_ones_survive() {
        let numbers: Vec<u16> = Code::ALL.iter().map(|code| code.0).collect();
        assert_eq!(numbers, (1..=23).collect::<Vec<_>>());
        assert_eq!(Code::REPLICA_FORKED.to_string(), "E_REPLICA_FORKED");
        let unknown = Code(999);
        let encoded = postcard::to_stdvec(&unknown).unwrap();
        assert_eq!(postcard::from_bytes(&encoded), Ok(unknown));
        assert_eq!(unknown.to_string(), "E_999");
    }
}
