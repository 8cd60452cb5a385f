//! What the carriers, the driver and the sessions can do when the stores cost
//! next to nothing: `cargo run --release --example throughput [CARRIER] [WHAT]`.
//!
//! A hub and a client in one process, over the loopback interface: so many bytes
//! a second in large files, and so many small files a second, each way.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "it is a measurement, not a program"
)]

#[path = "../tests/it/shelf.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod shelf;
#[path = "../tests/it/world.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod world;

use std::time::{Duration, Instant};

use bytes::Bytes;

use shelf::ShelfReplica;
use world::{ALL, Carrier, World};

/// Large files: 64 of 4 MiB in chunks of 256 KiB.
fn large() -> Vec<Vec<Bytes>> {
    (0..64)
        .map(|file| (0..16).map(|i| chunk(file * 16 + i, 256 << 10)).collect())
        .collect()
}

/// Small files: 40 000 of 4 KiB.
fn small() -> Vec<Vec<Bytes>> {
    (0..40_000).map(|file| vec![chunk(file, 4 << 10)]).collect()
}

/// Bytes that no other chunk has.
fn chunk(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    let mut state = seed + 1;
    for word in bytes.as_chunks_mut::<8>().0 {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        *word = state.to_le_bytes();
    }
    bytes.into()
}

async fn cloned(carrier: Carrier, files: &[Vec<Bytes>]) -> Duration {
    let world = World::new().await;
    world.hub.add(0, files);
    let replica = ShelfReplica::new(10);
    let start = Instant::now();
    let client = world.client(carrier, &replica);
    let _ = client.handle().fence().await;
    let took = start.elapsed();
    assert_eq!(replica.tree().len(), 2 * files.len());
    client.shutdown().await;
    took
}

async fn pushed(carrier: Carrier, files: &[Vec<Bytes>]) -> Duration {
    let world = World::new().await;
    let replica = ShelfReplica::new(10);
    let client = world.client(carrier, &replica);
    let _ = client.handle().fence().await;
    let start = Instant::now();
    replica.write(files);
    let _ = client.handle().fence().await;
    let took = start.elapsed();
    assert_eq!(world.hub.tree().len(), 2 * files.len());
    client.shutdown().await;
    took
}

#[allow(clippy::print_stdout, reason = "it is what the example is for")]
#[tokio::main]
async fn main() {
    let only = |text: &str, n: usize| std::env::args().nth(n).is_none_or(|arg| arg == text);
    for (what, files) in [("large", large()), ("small", small())] {
        for carrier in ALL {
            let name = format!("{carrier:?}").to_lowercase();
            if !only(&name, 1) || !only(what, 2) {
                continue;
            }
            let bytes: usize = files.iter().flatten().map(Bytes::len).sum();
            let (clone, push) = (cloned(carrier, &files).await, pushed(carrier, &files).await);
            for (way, took) in [("clone", clone), ("push", push)] {
                let seconds = took.as_secs_f64();
                let (mb, rate) = (bytes as f64 / seconds / 1e6, files.len() as f64 / seconds);
                println!("{name:7} {what:6} {way:6} {mb:7.0} MB/s {rate:9.0} files/s");
            }
        }
    }
}
