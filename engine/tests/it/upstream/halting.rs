//! Cuts that remove so much that somebody has to say that they may.

use cairn_protocol::session::Applied;
use cairn_protocol::wire::Why;

use super::two;

#[test]
fn a_cut_that_removes_most_of_a_tree_asks_first() {
    let (mut side, a, b) = two();
    a.replica.mkdir("/d").unwrap();
    for n in 0..200 {
        a.replica.write_file(format!("/d/{n}"), b"x").unwrap();
    }
    a.sync(&mut side);
    b.sync(&mut side);
    a.replica.remove_all("/d").unwrap();
    a.sync(&mut side);
    let halted = b.pull(&side, None);
    assert!(
        matches!(halted, Applied::Halted { removed: 201, .. }),
        "{halted:?}"
    );
    assert!(b.replica.exists("/d/1").unwrap());
}

/// All of a tree does not go unasked, but for so few files that it happens all the
/// time; and what was not said to be removed, but is absent, is asked about always.
#[test]
fn a_cut_that_empties_the_root_asks_first() {
    for (files, asks) in [(9, false), (10, true)] {
        let (mut side, a, b) = two();
        for n in 0..files {
            a.replica.write_file(format!("/{n}"), b"x").unwrap();
        }
        a.sync(&mut side);
        b.sync(&mut side);
        for n in 0..files {
            a.replica.remove(format!("/{n}")).unwrap();
        }
        a.sync(&mut side);
        let pulled = b.pull(&side, None);
        assert_eq!(matches!(pulled, Applied::Halted { .. }), asks, "{files}");
        // Another file comes in the place of all: that is no empty tree.
        a.replica.write_file("/new", b"new").unwrap();
        a.sync(&mut side);
        assert_eq!(b.pull(&side, None), Applied::Done);
    }
    let (mut side, a, b) = two();
    a.replica.write_file("/f", b"f").unwrap();
    a.sync(&mut side);
    b.sync(&mut side);
    let halted = b.begin_anew(&side, Why::Horizon, Vec::new(), None);
    assert_eq!(halted, Applied::Halted { removed: 1, of: 2 });
    assert!(b.replica.exists("/f").unwrap());
}
