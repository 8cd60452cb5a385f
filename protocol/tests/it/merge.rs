//! The merge rules, one by one: two replicas that do not know of each other.

use cairn_protocol::merge::{BatchError, Place, ResolveError, TreeView, resolve};
use cairn_protocol::testing::{Ack, Hub, ModelReplica, ModelTree, PushError, ReplicaSafeguards};
use cairn_protocol::{
    Data, Edit, Entry, Meta, MetaFields, Name, NodeId, NodeKind, Outcome, Refusal, ReplicaTag,
    Timestamp,
};

const META: Meta = Meta {
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: Timestamp::EPOCH,
    btime: Timestamp::EPOCH,
};

fn text(text: &str) -> Data {
    let bytes = text.as_bytes().to_vec().into();
    Data::Inline { bytes }
}

fn at(dir: NodeId, name: &str) -> Place {
    (dir, Name::new(name.as_bytes()).unwrap())
}

fn root(name: &str) -> Place {
    at(NodeId::ROOT, name)
}

/// A hub and two replicas, 1 and 2.
struct Pair {
    hub: Hub,
    a: ModelReplica,
    b: ModelReplica,
}

impl Pair {
    /// Replica 1 does something, and both know of it.
    fn after<T>(prepare: impl FnOnce(&mut ModelReplica) -> T) -> (Self, T) {
        let new = |tag| ModelReplica::new(ReplicaTag(tag), ReplicaSafeguards::ALL);
        let mut pair = Self {
            hub: Hub::default(),
            a: new(1),
            b: new(2),
        };
        let prepared = prepare(&mut pair.a);
        push(&mut pair.hub, 1, &mut pair.a);
        follow(&pair.hub, &mut pair.b);
        (pair, prepared)
    }

    /// Replica 1 pushes what it did, then replica 2. Both see the same then.
    /// Returns what the hub told each.
    fn meet(&mut self) -> [Vec<Outcome>; 2] {
        let told = [
            push(&mut self.hub, 1, &mut self.a),
            push(&mut self.hub, 2, &mut self.b),
        ];
        follow(&self.hub, &mut self.a);
        follow(&self.hub, &mut self.b);
        assert!(self.a.local() == self.hub.tree(), "I1");
        assert!(self.b.local() == self.hub.tree(), "I1");
        self.hub.tree().check().unwrap();
        told.map(|ack| {
            ack.map_or_else(Vec::new, |ack| {
                ack.outcomes
                    .into_iter()
                    .map(|(_, outcome)| outcome)
                    .collect()
            })
        })
    }

    fn shows(&self, place: &Place) -> Option<String> {
        let tree = self.hub.tree();
        let node = tree.at(place)?;
        Some(match tree.content(node) {
            Some(Data::Inline { bytes }) => String::from_utf8(bytes.to_vec()).unwrap(),
            _ => format!("{:?}", tree.kind(node).unwrap()),
        })
    }
}

fn follow(hub: &Hub, replica: &mut ModelReplica) {
    replica.follow(hub.head(), &hub.changes_since(replica.cursor()));
}

fn answer(hub: &Hub, replica: &mut ModelReplica, ack: &Ack) {
    let changes = hub.changes_since(replica.cursor());
    replica.acknowledge(hub.head(), &changes, ack);
}

fn push(hub: &mut Hub, tag: u64, replica: &mut ModelReplica) -> Option<Ack> {
    let (batch, edits) = replica.push()?;
    let ack = hub.push(ReplicaTag(tag), batch, edits).unwrap();
    answer(hub, replica, &ack);
    Some(ack)
}

fn file(replica: &mut ModelReplica, place: &Place, content: &str) -> NodeId {
    let data = Some(text(content));
    replica.create(place, NodeKind::File, data, META).unwrap()
}

fn dir(replica: &mut ModelReplica, place: &Place) -> NodeId {
    replica.create(place, NodeKind::Dir, None, META).unwrap()
}

#[test]
fn r1_concurrent_edits_of_one_file_are_both_kept() {
    let (mut pair, f) = Pair::after(|a| file(a, &root("f"), "old"));
    pair.a.write(f, text("of a")).unwrap();
    pair.b.write(f, text("of b")).unwrap();
    let [a, b] = pair.meet();
    assert_eq!(a, []);
    assert!(
        matches!(
            &b[..],
            [Outcome::Copied {
                parent: NodeId::ROOT,
                ..
            }]
        ),
        "{b:?}"
    );
    assert_eq!(pair.shows(&root("f")).unwrap(), "of a");
    assert_eq!(pair.shows(&root("f.conflict-2")).unwrap(), "of b");
}

#[test]
fn r1_the_same_edit_twice_is_one() {
    let (mut pair, f) = Pair::after(|a| file(a, &root("f"), "old"));
    pair.a.write(f, text("new")).unwrap();
    pair.b.write(f, text("new")).unwrap();
    assert_eq!(pair.meet(), [vec![], vec![]]);
    assert_eq!(pair.shows(&root("f")).unwrap(), "new");
}

#[test]
fn r2_an_edit_of_a_removed_file_brings_it_back() {
    let (mut pair, f) = Pair::after(|a| {
        let d = dir(a, &root("d"));
        file(a, &at(d, "f"), "old")
    });
    let d = pair.a.local().at(&root("d")).unwrap();
    pair.a.unlink(&at(d, "f")).unwrap();
    pair.a.unlink(&root("d")).unwrap();
    pair.b.write(f, text("new")).unwrap();
    let [_, b] = pair.meet();
    // With the directory that it was in (R9).
    assert_eq!(
        b,
        [Outcome::Revived { node: f }, Outcome::Revived { node: d }]
    );
    assert_eq!(pair.shows(&at(d, "f")).unwrap(), "new");
}

#[test]
fn r3_a_removal_of_what_its_author_had_not_seen_is_not_done() {
    let (mut pair, f) = Pair::after(|a| file(a, &root("f"), "old"));
    pair.a.write(f, text("new")).unwrap();
    pair.b.unlink(&root("f")).unwrap();
    let [_, b] = pair.meet();
    assert_eq!(b, [Outcome::Kept { node: f }]);
    assert_eq!(pair.shows(&root("f")).unwrap(), "new");
}

#[test]
fn r3_a_name_that_became_the_last_is_not_removed_by_who_knew_another() {
    let (mut pair, f) = Pair::after(|a| {
        let f = file(a, &root("f"), "old");
        a.link(f, &root("g")).unwrap();
        f
    });
    pair.a.unlink(&root("f")).unwrap();
    pair.b.unlink(&root("g")).unwrap();
    let [_, b] = pair.meet();
    assert_eq!(b, [Outcome::Kept { node: f }]);
    assert_eq!(pair.shows(&root("g")).unwrap(), "old");
}

#[test]
fn r4_directories_of_one_name_become_one() {
    let (mut pair, ()) = Pair::after(|_| ());
    let [x, y] = [&mut pair.a, &mut pair.b].map(|replica| {
        let d = dir(replica, &root("d"));
        let name = format!("of {}", d.replica);
        file(replica, &at(d, &name), &name);
        d
    });
    let [_, b] = pair.meet();
    assert_eq!(b, [Outcome::Alias { from: y, to: x }]);
    assert_eq!(pair.shows(&at(x, "of 1")).unwrap(), "of 1");
    assert_eq!(pair.shows(&at(x, "of 2")).unwrap(), "of 2");
}

#[test]
fn r4_files_of_one_name_and_content_become_one() {
    let (mut pair, ()) = Pair::after(|_| ());
    let [x, y] = [&mut pair.a, &mut pair.b].map(|replica| file(replica, &root("f"), "same"));
    let [_, b] = pair.meet();
    assert_eq!(b, [Outcome::Alias { from: y, to: x }]);
}

/// A new file with two names, of which one is taken by its equal, was a node without
/// content at the other, which nobody could ever push: whatever its author saw of it
/// was not what the hub had (seed 81 of the copies).
#[test]
fn r4_a_file_of_two_names_becomes_another_at_both() {
    for (taken, other) in [("f", "g"), ("g", "f")] {
        let (mut pair, ()) = Pair::after(|_| ());
        let x = file(&mut pair.a, &root(taken), "same");
        let y = file(&mut pair.b, &root("f"), "same");
        pair.b.link(y, &root("g")).unwrap();
        let [_, b] = pair.meet();
        assert_eq!(b, [Outcome::Alias { from: y, to: x }]);
        assert_eq!(pair.hub.tree().at(&root(other)), Some(x));
        assert_eq!(pair.shows(&root(other)).unwrap(), "same");
        assert_eq!(pair.hub.tree().kind(y), None);
    }
}

/// Where both names are taken, by two equals, they stay; a name that something else
/// has is as any other that is taken.
#[test]
fn r4_a_file_of_two_names_that_are_taken_leaves_them() {
    for (second, told) in [("same", 1), ("other", 2)] {
        let (mut pair, ()) = Pair::after(|_| ());
        let x = file(&mut pair.a, &root("f"), "same");
        let z = file(&mut pair.a, &root("g"), second);
        let y = file(&mut pair.b, &root("f"), "same");
        pair.b.link(y, &root("g")).unwrap();
        let [_, b] = pair.meet();
        assert_eq!(b.len(), told, "{b:?}");
        let tree = pair.hub.tree();
        assert_eq!(
            (tree.at(&root("f")), tree.at(&root("g"))),
            (Some(x), Some(z))
        );
        let beside = tree.at(&root("g.conflict-2"));
        assert_eq!(beside, (told == 2).then_some(x));
    }
}

/// A third replica knew the node, lost the hub that knew it, and makes it again:
/// it was not told before that another stands for it.
#[test]
fn r4_who_makes_an_alias_again_is_told_so() {
    let (mut pair, ()) = Pair::after(|_| ());
    let [x, y] = [&mut pair.a, &mut pair.b].map(|replica| dir(replica, &root("d")));
    pair.meet();
    let kind = NodeKind::Dir;
    let (parent, name) = root("elsewhere");
    let again = [
        Edit::New { node: y, kind },
        Edit::Name {
            parent,
            name,
            was: None,
            node: Some(y),
        },
    ];
    let ack = pair.hub.push(ReplicaTag(3), 1, &again).unwrap();
    assert!(
        ack.outcomes
            .contains(&(0, Outcome::Alias { from: y, to: x }))
    );
}

#[test]
fn r4_other_nodes_of_one_name_are_both_kept() {
    let (mut pair, ()) = Pair::after(|_| ());
    file(&mut pair.a, &root("x"), "of a");
    let y = dir(&mut pair.b, &root("x"));
    let [_, b] = pair.meet();
    let (parent, name) = root("x.conflict-2");
    assert_eq!(
        b,
        [Outcome::Renamed {
            node: y,
            parent,
            name
        }]
    );
    assert_eq!(pair.shows(&root("x")).unwrap(), "of a");
    assert_eq!(pair.shows(&root("x.conflict-2")).unwrap(), "Dir");
}

#[test]
fn r5_a_directory_that_something_new_is_in_is_not_removed() {
    let (mut pair, d) = Pair::after(|a| dir(a, &root("d")));
    file(&mut pair.a, &at(d, "f"), "new");
    pair.b.unlink(&root("d")).unwrap();
    let [_, b] = pair.meet();
    assert_eq!(b, [Outcome::Kept { node: d }]);
    assert_eq!(pair.shows(&at(d, "f")).unwrap(), "new");
}

#[test]
fn r6_of_two_renames_the_first_stands() {
    let (mut pair, f) = Pair::after(|a| file(a, &root("f"), "old"));
    pair.a.rename(&root("f"), &root("a")).unwrap();
    pair.b.rename(&root("f"), &root("b")).unwrap();
    let [_, b] = pair.meet();
    let why = Refusal::Moved;
    assert_eq!(b, [Outcome::Refused { why }]);
    assert_eq!(pair.hub.tree().at(&root("a")), Some(f));
    assert_eq!(pair.hub.tree().at(&root("b")), None);
}

#[test]
fn r6_a_rename_of_what_was_removed_brings_it_back() {
    let (mut pair, f) = Pair::after(|a| file(a, &root("f"), "old"));
    pair.a.unlink(&root("f")).unwrap();
    pair.b.rename(&root("f"), &root("b")).unwrap();
    let [_, b] = pair.meet();
    assert_eq!(b, [Outcome::Revived { node: f }]);
    assert_eq!(pair.shows(&root("b")).unwrap(), "old");
}

#[test]
fn r7_no_directory_comes_to_be_in_itself() {
    let (mut pair, (x, y)) = Pair::after(|a| (dir(a, &root("x")), dir(a, &root("y"))));
    pair.a.rename(&root("x"), &at(y, "x")).unwrap();
    pair.b.rename(&root("y"), &at(x, "y")).unwrap();
    let [_, b] = pair.meet();
    let why = Refusal::Cycle;
    assert_eq!(b, [Outcome::Refused { why }]);
    assert_eq!(pair.hub.tree().at(&root("y")), Some(y));
    assert_eq!(pair.hub.tree().at(&at(y, "x")), Some(x));
}

#[test]
fn r8_what_a_rename_would_replace_unseen_is_set_aside() {
    let (mut pair, (f, _)) = Pair::after(|a| {
        let f = file(a, &root("f"), "old");
        (f, file(a, &root("g"), "moved"))
    });
    pair.a.write(f, text("new")).unwrap();
    pair.b.rename(&root("g"), &root("f")).unwrap();
    let [_, b] = pair.meet();
    let (parent, name) = root("f.conflict-2");
    assert_eq!(
        b,
        [Outcome::Renamed {
            node: f,
            parent,
            name
        }]
    );
    assert_eq!(pair.shows(&root("f")).unwrap(), "moved");
    assert_eq!(pair.shows(&root("f.conflict-2")).unwrap(), "new");
}

#[test]
fn r9_who_puts_something_into_a_removed_directory_brings_it_back() {
    let (mut pair, (d, e)) = Pair::after(|a| {
        let d = dir(a, &root("d"));
        (d, dir(a, &at(d, "e")))
    });
    pair.a.unlink(&at(d, "e")).unwrap();
    pair.a.unlink(&root("d")).unwrap();
    let f = file(&mut pair.b, &at(e, "f"), "new");
    let [_, b] = pair.meet();
    assert_eq!(
        b,
        [Outcome::Revived { node: e }, Outcome::Revived { node: d }]
    );
    assert_eq!(pair.hub.tree().at(&at(e, "f")), Some(f));
    assert_eq!(pair.hub.tree().at(&root("d")), Some(d));
}

/// As a replica may look ahead: it was told of a dead file that is an alias of
/// its own, and not of the directory that it was in.
#[test]
fn r9_what_was_last_in_an_unknown_directory_comes_into_the_root() {
    let id = |counter| NodeId {
        replica: ReplicaTag(1),
        counter,
    };
    let (f, (parent, name)) = (id(2), at(id(1), "f"));
    let (kind, data) = (NodeKind::File, text("old"));
    let mut tree = ModelTree::new();
    tree.apply(1, &Entry::Node { id: f, kind });
    tree.apply(1, &Entry::Data { node: f, data });
    for node in [Some(f), None] {
        let name = name.clone();
        tree.apply(1, &Entry::Name { parent, name, node });
    }
    let edit = Edit::Data {
        node: f,
        base: 1,
        data: text("new"),
    };
    let resolved = resolve(&tree, &[edit], ReplicaTag(1), &mut || id(9)).unwrap();
    assert_eq!(resolved.outcomes, [(0, Outcome::Revived { node: f })]);
    tree.commit(2, &resolved);
    assert_eq!(tree.at(&root("f")), Some(f));
    tree.check().unwrap();
}

/// Found by a simulation (322): what was told of a dead file without its end made
/// it live, without a name.
#[test]
fn what_is_dead_is_told_with_its_end() {
    let (mut pair, [f, g]) = Pair::after(|a| [file(a, &root("f"), "f"), file(a, &root("g"), "g")]);
    pair.a.unlink(&root("f")).unwrap();
    pair.meet();
    pair.hub.forget();
    pair.a.unlink(&root("g")).unwrap();
    pair.meet();
    let told = pair.hub.whole();
    let says = |entry: &Entry| told.iter().any(|change| change.entry == *entry);
    assert!(!says(&Entry::Gone { node: f }));
    assert!(says(&Entry::Gone { node: g }));
    let mut tree = ModelTree::new();
    for change in &told {
        tree.apply(change.ver, &change.entry);
    }
    assert_eq!(tree.live().count(), 1);
    assert_eq!(tree.node(g).unwrap().unwrap().last, Some(root("g")));
}

#[test]
fn r10_attributes_are_merged_one_by_one() {
    let (mut pair, f) = Pair::after(|a| file(a, &root("f"), "old"));
    pair.a
        .set_meta(
            f,
            Meta {
                mode: 0o600,
                ..META
            },
        )
        .unwrap();
    pair.b.set_meta(f, Meta { uid: 7, ..META }).unwrap();
    assert_eq!(pair.meet(), [vec![], vec![]]);
    let merged = Meta {
        mode: 0o600,
        uid: 7,
        ..META
    };
    assert_eq!(pair.hub.tree().attributes(f), Some(&merged));
}

/// The answer to the first edit is lost; somebody else edits what it made; the
/// second edit is of the first, not of theirs.
#[test]
fn r11_an_edit_of_something_in_flight_is_based_on_its_answer() {
    let (mut pair, f) = Pair::after(|a| file(a, &root("f"), "old"));
    pair.a.write(f, text("first")).unwrap();
    let (batch, edits) = pair.a.push().unwrap();
    let edits = edits.to_vec();
    let ack = pair.hub.push(ReplicaTag(1), batch, &edits).unwrap();
    follow(&pair.hub, &mut pair.b);
    pair.b.write(f, text("of b")).unwrap();
    push(&mut pair.hub, 2, &mut pair.b);
    pair.a.write(f, text("second")).unwrap();
    answer(&pair.hub, &mut pair.a, &ack);
    let [a, _] = pair.meet();
    assert!(matches!(&a[..], [Outcome::Copied { .. }]), "{a:?}");
    assert_eq!(pair.shows(&root("f")).unwrap(), "of b");
    assert_eq!(pair.shows(&root("f.conflict-1")).unwrap(), "second");
}

#[test]
fn r12_edits_after_a_conflict_are_of_the_copy() {
    let (mut pair, f) = Pair::after(|a| file(a, &root("f"), "old"));
    pair.a.write(f, text("of a")).unwrap();
    push(&mut pair.hub, 1, &mut pair.a);
    pair.b.write(f, text("of b")).unwrap();
    let (batch, edits) = pair.b.push().unwrap();
    let ack = pair.hub.push(ReplicaTag(2), batch, edits).unwrap();
    pair.b.write(f, text("of b, more")).unwrap();
    answer(&pair.hub, &mut pair.b, &ack);
    assert_eq!(pair.meet(), [vec![], vec![]]);
    assert_eq!(pair.shows(&root("f")).unwrap(), "of a");
    assert_eq!(pair.shows(&root("f.conflict-2")).unwrap(), "of b, more");
    assert_eq!(pair.hub.tree().names().count(), 2);
}

#[test]
fn r14_what_would_hide_an_edit_is_not_shown_before_the_answer() {
    let (mut pair, d) = Pair::after(|a| dir(a, &root("d")));
    pair.a.unlink(&root("d")).unwrap();
    push(&mut pair.hub, 1, &mut pair.a);
    file(&mut pair.b, &at(d, "f"), "new");
    pair.b.push().unwrap();
    follow(&pair.hub, &mut pair.b);
    assert!(pair.b.local().at(&at(d, "f")).is_some());
    assert_eq!(pair.b.local().at(&root("d")), Some(d));
    pair.meet();
    assert_eq!(pair.shows(&at(d, "f")).unwrap(), "new");
}

#[test]
fn i9_a_rename_of_a_large_directory_is_two_edits() {
    let (mut pair, d) = Pair::after(|a| {
        let d = dir(a, &root("d"));
        for i in 0..1_000 {
            file(a, &at(d, &i.to_string()), &i.to_string());
        }
        d
    });
    pair.a.rename(&root("d"), &root("e")).unwrap();
    assert_eq!(pair.a.push().unwrap().1.len(), 2);
    pair.meet();
    assert_eq!(pair.hub.tree().at(&root("e")), Some(d));
}

#[test]
fn i9_names_of_one_file_stay_names_of_one_file() {
    let (mut pair, f) = Pair::after(|a| file(a, &root("f"), "old"));
    pair.a.link(f, &root("g")).unwrap();
    pair.b.write(f, text("new")).unwrap();
    assert_eq!(pair.meet(), [vec![], vec![]]);
    assert_eq!(pair.shows(&root("g")).unwrap(), "new");
    assert_eq!(pair.hub.tree().at(&root("g")), Some(f));
}

#[test]
fn i3_a_batch_that_comes_twice_is_answered_twice_and_done_once() {
    let (mut pair, ()) = Pair::after(|_| ());
    file(&mut pair.a, &root("f"), "new");
    let (batch, edits) = pair.a.push().unwrap();
    let first = pair.hub.push(ReplicaTag(1), batch, edits).unwrap();
    let again = pair.hub.push(ReplicaTag(1), batch, edits).unwrap();
    assert_eq!((first, pair.hub.head()), (again, 1));
    let gap = pair.hub.push(ReplicaTag(1), batch + 2, edits);
    assert_eq!(gap, Err(PushError::Gap { last: 1, got: 3 }));
    let other = pair.hub.push(ReplicaTag(1), batch, &edits[1..]);
    assert_eq!(other, Err(PushError::ReplicaForked(1)));
}

/// A replica that is mad or lies changes nothing.
#[test]
fn batches_that_contradict_themselves_are_refused() {
    let id = |counter| NodeId {
        replica: ReplicaTag(9),
        counter,
    };
    let new = |counter, kind| Edit::New {
        node: id(counter),
        kind,
    };
    let put = |place: Place, counter| Edit::Name {
        parent: place.0,
        name: place.1,
        was: None,
        node: Some(id(counter)),
    };
    let cases = [
        (
            vec![new(1, NodeKind::File), new(1, NodeKind::File)],
            BatchError::Twice {
                first: 0,
                second: 1,
            },
        ),
        (
            vec![
                new(1, NodeKind::File),
                Edit::Data {
                    node: id(1),
                    base: 0,
                    data: Data::Dir,
                },
            ],
            BatchError::Kind {
                edit: 1,
                node: id(1),
            },
        ),
        (vec![new(1, NodeKind::File)], BatchError::Unplaced(id(1))),
        (
            vec![
                new(1, NodeKind::Dir),
                new(2, NodeKind::Dir),
                put(at(id(1), "a"), 2),
                put(at(id(2), "b"), 1),
            ],
            BatchError::Unplaced(id(1)),
        ),
        (
            vec![new(1, NodeKind::Dir), put(root("a"), 1), put(root("b"), 1)],
            BatchError::TwoParents(id(1)),
        ),
        (
            vec![
                new(1, NodeKind::File),
                put(root("a"), 1),
                new(2, NodeKind::File),
                put(at(id(1), "b"), 2),
            ],
            BatchError::NotDir {
                edit: 3,
                node: id(1),
            },
        ),
        (
            vec![Edit::Name {
                parent: NodeId::ROOT,
                name: root("a").1,
                was: None,
                node: Some(NodeId::ROOT),
            }],
            BatchError::Root { edit: 0 },
        ),
    ];
    for (edits, why) in cases {
        let tree = ModelTree::new();
        let got = resolve(&tree, &edits, ReplicaTag(9), &mut || id(100));
        assert_eq!(got, Err(ResolveError::Batch(why)), "{edits:?}");
    }
}

/// What a replica says of nodes that nobody knows is refused edit by edit.
#[test]
fn edits_of_unknown_nodes_are_refused_and_said_so() {
    let node = NodeId {
        replica: ReplicaTag(9),
        counter: 1,
    };
    let edits = [
        Edit::Data {
            node,
            base: 0,
            data: text("x"),
        },
        Edit::Meta {
            node,
            base: 0,
            fields: MetaFields::ALL,
            meta: META,
        },
        Edit::Name {
            parent: node,
            name: root("a").1,
            was: None,
            node: Some(node),
        },
    ];
    let tree = ModelTree::new();
    let got = resolve(&tree, &edits, ReplicaTag(9), &mut || node).unwrap();
    let why = Refusal::Unknown;
    let mut refused: Vec<_> = got.outcomes.iter().map(|(edit, o)| (*edit, o)).collect();
    refused.sort();
    let outcome = Outcome::Refused { why };
    assert_eq!(refused, [(0, &outcome), (1, &outcome), (2, &outcome)]);
    assert_eq!(got.entries, []);
}

/// The work grows with the batch, not with its square: this takes minutes then.
#[test]
fn a_large_batch_is_resolved() {
    const COUNT: usize = 20_000;
    let (mut pair, d) = Pair::after(|a| {
        for i in 0..COUNT {
            file(a, &root(&i.to_string()), &i.to_string());
        }
        dir(a, &root("d"))
    });
    for i in 0..COUNT {
        let name = i.to_string();
        pair.b.rename(&root(&name), &at(d, &name)).unwrap();
    }
    pair.meet();
    assert_eq!(
        pair.hub.tree().at(&at(d, "7")),
        pair.a.local().at(&at(d, "7"))
    );
    assert!(pair.hub.tree().at(&root("7")).is_none());
}
