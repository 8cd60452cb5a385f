//! Tests of the engine through its public interface: against a reference
//! model, over crashes, damage and full disks.
//!
//! `CAIRN_SEEDS=n` runs each random test with `n` seeds, `CAIRN_SEED=x` with
//! that one only; a failure prints its seed. `CAIRN_ROUNDS=n` kills a process
//! `n` times, `CAIRN_STEPS=n` makes a sequence on contents that long.
#![allow(missing_docs, reason = "tests")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what fails here fails the test, and says which seed it was"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "sizes in tests are far below every limit"
)]

mod changes;
mod copies;
mod crash;
mod damage;
mod dedup;
mod faulty;
mod fsx;
mod full_disk;
mod hub;
mod ignored;
mod large_cut;
mod lost;
mod mass_cut;
mod middle;
mod model;
mod races;
mod reference;
mod regressions;
mod single_file;
mod smoke;
mod space;
mod support;
mod tight;
mod upstream;
mod world;
