//! One large file: written, read, copied, changed, in large and small pieces.
//!
//! The contents are random, and new in each round, so that neither zeros nor
//! compression nor a chunk that is already known makes a write cheaper than it
//! is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{Need, Scenario, Step};
use crate::inputs::{Inputs, LARGE_BYTES};
use crate::mapped;

/// The file that every scenario works on.
const FILE: &str = "large";

/// Bytes of a large piece.
const LARGE_PIECE: usize = 1 << 20;

/// Bytes of a small piece.
const SMALL_PIECE: usize = 4096;

/// Operations at random places: a quarter of the file's pieces.
const RANDOM_OPERATIONS: usize = 4096;

pub(super) fn all() -> Vec<Scenario> {
    [
        writes(),
        reads(),
        copies(),
        vec![
            row(
                "random 4 KiB reads x4096 (loop)",
                Step::Loop(write_pieces),
                Step::Loop(read_random),
            ),
            row(
                "random 4 KiB writes x4096 (loop)",
                Step::Loop(write_pieces),
                Step::Loop(write_random),
            ),
        ],
    ]
    .concat()
}

const fn row(name: &'static str, prepare: Step, run: Step) -> Scenario {
    Scenario::new(name, prepare, run).with(Need::Random)
}

fn writes() -> Vec<Scenario> {
    let written = Step::Loop(write_pieces);
    vec![
        row(
            "write 64 MiB",
            Step::Nothing,
            Step::Shell(r#"dd if="$FIRST" of=large bs=1M"#),
        ),
        row("write 64 MiB (loop)", Step::Nothing, written),
        row(
            "write 64 MiB + fsync (loop)",
            Step::Nothing,
            Step::Loop(|dir, inputs| {
                write_pieces(dir, inputs)?;
                File::open(dir.join(FILE))?.sync_all()
            }),
        ),
        row(
            "write 64 MiB by 4 KiB (loop)",
            Step::Nothing,
            Step::Loop(|dir, inputs| write_by(dir, &inputs.first, SMALL_PIECE)),
        ),
        row(
            "overwrite 64 MiB",
            written,
            Step::Shell(r#"dd if="$SECOND" of=large bs=1M conv=notrunc"#),
        ),
        row(
            "overwrite 64 MiB (loop)",
            written,
            Step::Loop(|dir, inputs| {
                let file = OpenOptions::new().write(true).open(dir.join(FILE))?;
                write_all_at(&file, &inputs.second, LARGE_PIECE)
            }),
        ),
    ]
}

fn reads() -> Vec<Scenario> {
    let written = Step::Loop(write_pieces);
    vec![
        row(
            "write + read 64 MiB",
            Step::Nothing,
            Step::Shell(r#"dd if="$FIRST" of=large bs=1M && cat large"#),
        ),
        row("pure read 64 MiB", written, Step::Shell("cat large")),
        row("pure read 64 MiB cold", written, Step::Shell("cat large")).cold(),
        row("pure read 64 MiB (loop)", written, Step::Loop(read_pieces)),
        row(
            "pure read 64 MiB cold (loop)",
            written,
            Step::Loop(read_pieces),
        )
        .cold(),
        row("mmap read 64 MiB (loop)", written, Step::Loop(read_mapped)),
        row(
            "mmap read 64 MiB cold (loop)",
            written,
            Step::Loop(read_mapped),
        )
        .cold(),
    ]
}

fn copies() -> Vec<Scenario> {
    let written = Step::Loop(write_pieces);
    vec![
        row(
            "write + copy 64 MiB",
            Step::Nothing,
            Step::Shell(r#"dd if="$FIRST" of=large bs=1M && cp large copy"#),
        ),
        row("pure copy 64 MiB", written, Step::Shell("cp large copy")),
        row(
            "copy 64 MiB by read+write (loop)",
            written,
            Step::Loop(copy_pieces),
        ),
    ]
}

fn write_by(dir: &Path, bytes: &[u8], piece: usize) -> io::Result<()> {
    let mut file = File::create(dir.join(FILE))?;
    bytes
        .chunks(piece)
        .try_for_each(|piece| file.write_all(piece))
}

fn write_pieces(dir: &Path, inputs: &Inputs) -> io::Result<()> {
    write_by(dir, &inputs.first, LARGE_PIECE)
}

fn write_all_at(file: &File, bytes: &[u8], piece: usize) -> io::Result<()> {
    let mut offset = 0;
    for piece in bytes.chunks(piece) {
        file.write_all_at(piece, offset)?;
        offset += piece.len() as u64;
    }
    Ok(())
}

/// Reads to the end and checks how much there was.
fn read_pieces(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let mut file = File::open(dir.join(FILE))?;
    let mut buffer = vec![0; LARGE_PIECE];
    let mut total = 0;
    loop {
        let len = file.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        total += len;
    }
    if total == LARGE_BYTES {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn read_mapped(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let file = File::open(dir.join(FILE))?;
    std::hint::black_box(mapped::sum(&file, LARGE_BYTES)?);
    Ok(())
}

/// Copies without `copy_file_range`, which `std::fs::copy` would use.
fn copy_pieces(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let mut source = File::open(dir.join(FILE))?;
    let mut target = fs::File::create(dir.join("copy"))?;
    let mut buffer = vec![0; LARGE_PIECE];
    loop {
        let len = source.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        target.write_all(&buffer[..len])?;
    }
}

/// The places of the random operations: the pieces of the file in the order of
/// a full-period linear congruential generator, the same on every target.
fn places() -> impl Iterator<Item = usize> {
    const PIECES: usize = LARGE_BYTES / SMALL_PIECE;
    // A multiplier of 1 mod 4 and an odd increment visit each residue once.
    (0..RANDOM_OPERATIONS).scan(12345, |piece, _| {
        *piece = (*piece * 5 + 8191) % PIECES;
        Some(*piece * SMALL_PIECE)
    })
}

fn read_random(dir: &Path, _inputs: &Inputs) -> io::Result<()> {
    let file = File::open(dir.join(FILE))?;
    let mut buffer = [0; SMALL_PIECE];
    places().try_for_each(|place| file.read_exact_at(&mut buffer, place as u64))
}

fn write_random(dir: &Path, inputs: &Inputs) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(dir.join(FILE))?;
    places().try_for_each(|place| {
        let piece = &inputs.second[place..][..SMALL_PIECE];
        file.write_all_at(piece, place as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_places_are_distinct_and_inside_the_file() {
        let mut all: Vec<usize> = places().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), RANDOM_OPERATIONS);
        assert!(all.iter().all(|place| place + SMALL_PIECE <= LARGE_BYTES));
    }
}
