//! A session of either end hears any frames: it does not panic, what its store has
//! is a tree (I11), and it takes no more than it granted (I13).
#![no_main]

use cairn_protocol::testing::scripts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    scripts::hear(input);
});
