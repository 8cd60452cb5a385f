//! Who saw what: whether a content that is gone was meant to go (I2).

use std::collections::BTreeSet;

use super::tree::ModelTree;
use crate::data::Data;

/// Remembers every content that was written, each written once, and which of
/// them somebody replaced or removed who had it before his eyes.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    written: BTreeSet<Vec<u8>>,
    superseded: BTreeSet<Vec<u8>>,
}

impl Oracle {
    /// A content was written in the place of another.
    pub fn written(&mut self, new: &Data, over: Option<&Data>) {
        self.written.extend(key(new));
        self.superseded.extend(over.and_then(key));
    }

    /// The last name of a content was removed.
    pub fn removed(&mut self, data: Option<&Data>) {
        self.superseded.extend(data.and_then(key));
    }

    /// The contents that are nowhere in the tree, and that nobody meant to lose.
    pub fn lost(&self, tree: &ModelTree) -> Vec<Vec<u8>> {
        let live = tree.live().filter_map(|(node, _)| tree.content(node));
        let live: BTreeSet<Vec<u8>> = live.filter_map(key).collect();
        let kept =
            |content: &&Vec<u8>| live.contains(*content) || self.superseded.contains(*content);
        self.written.iter().filter(|c| !kept(c)).cloned().collect()
    }
}

fn key(data: &Data) -> Option<Vec<u8>> {
    match data {
        Data::Inline { bytes } => Some(bytes.to_vec()),
        Data::File { manifest, .. } => Some(manifest.as_bytes().to_vec()),
        _ => None,
    }
}
