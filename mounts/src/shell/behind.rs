//! Output that is not written yet. The interpreter passes what a tool writes
//! into a file on in chunks of 4 KiB, and asks for the file's attributes before
//! each; here such chunks are gathered to what one message carries.
//!
//! The first chunk is written at once, so that what cannot be written is told at
//! once. A chunk that is not full is the last one, and is not held back. What is
//! held back is written before anything else is asked, and when the tool ends.

use std::time::{Duration, Instant};

use super::wire::Node;

/// What the interpreter writes at a time.
pub(crate) const CHUNK: usize = 4 << 10;
/// Bytes that are held back at most.
pub(crate) const HELD_MAX: usize = 256 << 10;
/// How long the attributes hold with no chunk coming.
const FRESH: Duration = Duration::from_millis(5);

/// Output for the end of a file.
#[derive(Debug)]
pub(crate) struct Behind {
    pub(crate) path: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
    /// The attributes of the file before these bytes.
    node: Node,
    at: Instant,
}

impl Behind {
    /// A file to which something was just added.
    pub(crate) fn new(path: &[u8], node: Node) -> Self {
        Self {
            path: path.to_vec(),
            bytes: Vec::new(),
            node,
            at: Instant::now(),
        }
    }

    /// Whether a chunk is for this file and can wait.
    pub(crate) fn takes(&self, path: &[u8], chunk: &[u8]) -> bool {
        self.path == path && chunk.len() == CHUNK && self.bytes.len() < HELD_MAX
    }

    pub(crate) fn add(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
        self.at = Instant::now();
    }

    /// The bytes, which are about to be written.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.node.size += self.bytes.len() as u64;
        std::mem::take(&mut self.bytes)
    }

    /// The attributes of the file, if this is the one and they are known to hold.
    pub(crate) fn node(&self, path: &[u8]) -> Option<Node> {
        let known = self.path == path && self.at.elapsed() < FRESH;
        known.then(|| Node {
            size: self.node.size + self.bytes.len() as u64,
            ..self.node
        })
    }
}
