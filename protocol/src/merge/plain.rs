//! Whether a batch took effect just as it says. Then its author knows all of the
//! commit, and need not be told of it (SES-24).

use crate::change::Entry;
use crate::edit::Edit;
use crate::id::NodeId;

/// Whether entries are what the edits of a batch say, register by register, and
/// nothing else.
pub fn is_plain(edits: &[Edit], entries: &[Entry]) -> bool {
    if entries.len() != edits.len() {
        return false;
    }
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_unstable_by_key(|edit| of_edit(edit));
    let mut entries: Vec<&Entry> = entries.iter().collect();
    entries.sort_unstable_by_key(|entry| of_entry(entry));
    let mut pairs = edits.into_iter().zip(entries);
    pairs.all(|(edit, entry)| edit.effect() == *entry)
}

/// What an edit is of. A batch has each once (EDT-4).
fn of_edit(edit: &Edit) -> (u8, NodeId, &[u8]) {
    match edit {
        Edit::New { node, .. } => (0, *node, &[]),
        Edit::Data { node, .. } => (1, *node, &[]),
        Edit::Meta { node, .. } => (2, *node, &[]),
        Edit::Name { parent, name, .. } => (3, *parent, name.as_bytes()),
        Edit::Xattr { node, name, .. } => (4, *node, name.as_bytes()),
        Edit::Drop { node, .. } => (5, *node, &[]),
    }
}

fn of_entry(entry: &Entry) -> (u8, NodeId, &[u8]) {
    match entry {
        Entry::Node { id, .. } => (0, *id, &[]),
        Entry::Data { node, .. } => (1, *node, &[]),
        Entry::Meta { node, .. } => (2, *node, &[]),
        Entry::Name { parent, name, .. } => (3, *parent, name.as_bytes()),
        Entry::Xattr { node, name, .. } => (4, *node, name.as_bytes()),
        Entry::Gone { node } => (5, *node, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Data, Name, NodeKind, ReplicaTag};

    fn node(counter: u64) -> NodeId {
        let replica = ReplicaTag(1);
        NodeId { replica, counter }
    }

    fn name(name: &str, was: Option<NodeId>, node: Option<NodeId>) -> Edit {
        Edit::Name {
            parent: NodeId::ROOT,
            name: Name::new(name.as_bytes()).unwrap(),
            was,
            node,
        }
    }

    fn edits() -> Vec<Edit> {
        let (data_base, base, kind) = (1, 0, NodeKind::File);
        let data = Data::Inline {
            bytes: vec![1].into(),
        };
        vec![
            name("old", Some(node(1)), None),
            Edit::Drop {
                node: node(1),
                data_base,
            },
            name("b", None, Some(node(3))),
            Edit::New {
                node: node(3),
                kind,
            },
            Edit::Data {
                node: node(3),
                base,
                data: data.clone(),
            },
            name("a", None, Some(node(2))),
            Edit::New {
                node: node(2),
                kind,
            },
            Edit::Data {
                node: node(2),
                base,
                data,
            },
        ]
    }

    #[test]
    fn a_batch_is_plain_in_any_order_and_only_if_nothing_differs() {
        let edits = edits();
        let mut entries: Vec<Entry> = edits.iter().map(Edit::effect).collect();
        entries.reverse();
        assert!(is_plain(&edits, &entries));
        for at in 0..entries.len() {
            // Less, something twice, something else.
            let mut less = entries.clone();
            less.remove(at);
            assert!(!is_plain(&edits, &less));
            less.push(entries[(at + 1) % entries.len()].clone());
            assert!(!is_plain(&edits, &less));
            let mut more = entries.clone();
            more.push(Entry::Gone { node: node(9) });
            assert!(!is_plain(&edits, &more));
            more[at] = Entry::Gone { node: node(8) };
            more.pop();
            assert!(!is_plain(&edits, &more));
        }
    }
}
