//! Times of any age through sync and mounts: a clock that is wrong, or an archive
//! of long ago, changes nothing but what is shown.

use crate::hubs::Hub;
use crate::program::until;
use crate::scratch::{Scratch, can_mount};

/// The first and the last year that programs can name, just before 1970, and where
/// 32 bits end.
const TIMES: [&str; 5] = [
    "0001-01-01T00:00:00.000000001Z",
    "1969-12-31T23:59:59.250000000Z",
    "2038-01-19T03:14:08.000000000Z",
    "2500-02-03T04:05:06.123456789Z",
    "9999-12-31T23:59:59.999999999Z",
];

#[test]
fn times_of_any_age_are_the_same_on_both_mounts() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let hub = Hub::new(&scratch, "hub", &[]);
    let url = hub.url("quic").to_owned();
    for name in ["a", "b"] {
        scratch.cairn(&format!("clone {url} {name}")).done();
    }
    let mounts = (scratch.mount("a"), scratch.mount("b"));
    for (n, time) in TIMES.iter().enumerate() {
        let make = format!(
            "echo {n} > a/{n} && mkdir a/d{n} && ln -s x a/l{n} && \
             touch -h -d {time} a/{n} a/d{n} a/l{n}"
        );
        scratch.sh(&make).done();
    }
    let shown = |at: &str| {
        let stat = "TZ=UTC stat -c '%n %y' [0-9] d[0-9] l[0-9] 2>/dev/null";
        scratch.sh(&format!("cd {at} && {stat}")).out
    };
    let wanted = String::from_utf8(shown("a")).unwrap();
    for time in TIMES {
        let time = time.replace('T', " ").replace('Z', " +0000");
        assert_eq!(wanted.matches(&time).count(), 3, "{time} in {wanted}");
    }
    until("the times are on the other mount", || {
        shown("b") == wanted.as_bytes()
    });
    // What came is no edit.
    drop(mounts);
    let said = scratch.cairn("sync b.cairn --json").done();
    assert!(said.text().contains("\"batches\":0"), "{said:?}");
    for name in ["a", "b", "hub"] {
        scratch.cairn(&format!("check {name}.cairn")).done();
    }
    hub.end();
}
