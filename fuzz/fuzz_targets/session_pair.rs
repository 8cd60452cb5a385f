//! A hub and its replicas under any schedule: the laws hold, and when nothing goes
//! wrong any more, everybody comes to rest with one tree.
#![no_main]

use cairn_protocol::testing::scripts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| {
    // The longer a schedule, the less of it matters.
    let held = scripts::run(&script[..script.len().min(600)]);
    assert_eq!(held, Ok(()));
});
