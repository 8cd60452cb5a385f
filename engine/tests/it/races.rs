//! Many threads at once: nothing hangs, and what they leave is whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use cairn_engine::{FsError, Ino, Options, RenameMode, Replica, SetAttr};
use rustix::io::Errno;

use crate::support::{Rng, assert_clean, assert_same, noise, open, place, seeds, tiny};

/// Ends the test when it hangs, with a word on where.
fn watched(what: &str, run: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let _ = done.send(());
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    // Many times what it takes on a slow machine.
    let Ok(()) = finished.recv_timeout(Duration::from_mins(5)) else {
        panic!("{what} hangs");
    };
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Errors that an operation may meet when others are at the same names.
#[track_caller]
fn allowed<T>(done: Result<T, FsError>) {
    if let Err(error) = done {
        let errno = error.errno();
        let expected = [
            Errno::NOENT,
            Errno::EXIST,
            Errno::NOTDIR,
            Errno::ISDIR,
            Errno::NOTEMPTY,
            Errno::INVAL,
            Errno::PERM,
        ];
        assert!(expected.contains(&errno), "{error:?}");
    }
}

fn path(rng: &mut Rng) -> String {
    match rng.below(3) {
        0 => format!("/n{}", rng.below(8)),
        1 => format!("/d{}/n{}", rng.below(3), rng.below(8)),
        _ => format!("/d{}/e/n{}", rng.below(3), rng.below(4)),
    }
}

fn anything(replica: &Replica, rng: &mut Rng) {
    let (a, b) = (path(rng), path(rng));
    match rng.below(22) {
        0..4 => {
            let size = *rng.pick(&[20, 600, 70_000, 1_500_000]);
            allowed(replica.write_file(a, &noise(size, rng.below(50))));
        }
        4..6 => allowed(replica.append_file(a, &rng.bytes(3_000))),
        6 => allowed(replica.replace_file(a, &rng.bytes(100_000))),
        7..9 => allowed(replica.rename_path(a, b)),
        9 => allowed(replica.hard_link(a, b)),
        10 => allowed(replica.copy_file(a, b)),
        11 => allowed(replica.remove(a)),
        12 => allowed(replica.remove_all(format!("/d{}", rng.below(3)))),
        13 => allowed(replica.mkdir_all(format!("/d{}/e", rng.below(3)))),
        14..17 => allowed(replica.read_file(a)),
        17 => allowed(replica.list("/d1", 0, 100)),
        18 => allowed(replica.truncate_path(a, rng.below(2_000_000))),
        19 => allowed(replica.chmod(a, rng.below(0o1000) as u16)),
        20 => {
            let (from, to) = (replica.stat(a), replica.stat(b));
            if let (Ok(from), Ok(to)) = (from, to) {
                let mode = RenameMode::Exchange;
                allowed(replica.copy_range(from.ino, 0, to.ino, 100, 50_000));
                allowed(replica.rename(Ino::ROOT, b"n1", Ino::ROOT, b"n2", mode));
            }
        }
        _ => match replica.stat(a) {
            Ok(attr) => allowed(replica.fsync(attr.ino)),
            Err(error) => allowed::<()>(Err(error)),
        },
    }
}

fn everybody_at_once(seed: u64, options: Options) {
    let (_dir, place) = place();
    let replica = Replica::open(&place, options.clone()).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|n| {
                let replica = &replica;
                scope.spawn(move || {
                    let mut rng = Rng::new(seed * 100 + n);
                    for _ in 0..250 {
                        anything(replica, &mut rng);
                    }
                })
            })
            .collect();
        for n in 0..2 {
            let (replica, stop) = (&replica, &stop);
            scope.spawn(move || {
                let mut rng = Rng::new(seed * 100 + 50 + n);
                while !stop.load(Ordering::Relaxed) {
                    match rng.below(5) {
                        0 => drop(replica.gc().unwrap()),
                        1 => drop(replica.cursor().unwrap()),
                        2 => replica.sync().unwrap(),
                        3 => drop(replica.usage().unwrap()),
                        _ => drop(replica.changes_since(None).unwrap()),
                    }
                }
            });
        }
        let outcomes: Vec<_> = workers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        stop.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            if let Err(panic) = outcome {
                println!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    });
    assert_clean(&replica);
    drop(replica);
    assert_clean(&Replica::open(&place, options).unwrap());
}

#[test]
fn everything_at_once_leaves_a_sound_replica() {
    for seed in seeds(1) {
        watched("everything at once", move || {
            everybody_at_once(seed, Options::default());
        });
    }
}

#[test]
fn everything_at_once_with_little_memory_leaves_a_sound_replica() {
    for seed in seeds(1) {
        watched("everything at once", move || {
            everybody_at_once(seed, tiny());
        });
    }
}

/// Readers of a file that is replaced all the time, while gc takes what they
/// have just been looking at, see one version or another, whole.
#[test]
fn readers_see_whole_versions_while_gc_runs() {
    watched("reading beside gc", || {
        let (_dir, place) = place();
        let replica = open(&place);
        let sizes = [80_000, 300_000, 2_500_000];
        let version = |n: u64| noise(sizes[n as usize % sizes.len()], n % 12);
        replica.write_file("/f", &version(0)).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let whole: Vec<Vec<u8>> = (0..12).map(version).collect();
                    while !stop.load(Ordering::Relaxed) {
                        let file = replica.open_file("/f").unwrap();
                        let mut bytes = vec![0; file.attr().unwrap().size as usize];
                        let got = replica.read(file.ino(), 0, &mut bytes).unwrap();
                        assert!(
                            whole.contains(&bytes[..got].to_vec()),
                            "{got} bytes of no version"
                        );
                    }
                });
            }
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    replica.gc().unwrap();
                }
            });
            for n in 1..60 {
                replica.replace_file("/f", &version(n)).unwrap();
                if n % 3 == 0 {
                    replica.cursor().unwrap();
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_clean(&replica);
    });
}

/// Writers of parts of one file, with seals and truncations at its end beside
/// them: each part is what its writer wrote last.
#[test]
fn writers_of_one_file_do_not_lose_each_others_parts() {
    const PART: u64 = 200_000;
    watched("writing beside seals", || {
        let (_dir, place) = place();
        let replica = open(&place);
        let ino = replica
            .write_file("/f", &noise(4 * PART as usize, 0))
            .unwrap()
            .ino;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|n| {
                    let replica = &replica;
                    scope.spawn(move || {
                        let mut last = Vec::new();
                        for round in 1..60 {
                            replica.retain(ino, true).unwrap();
                            last = noise(PART as usize, n * 1_000 + round);
                            for (i, piece) in last.chunks(50_000).enumerate() {
                                let at = n * PART + i as u64 * 50_000;
                                replica.write(ino, at, piece).unwrap();
                            }
                            let mut got = vec![0; PART as usize];
                            replica.read(ino, n * PART, &mut got).unwrap();
                            assert_same(&got, &last, format!("part {n}, round {round}"));
                            replica.release(ino, true);
                        }
                        last
                    })
                })
                .collect();
            scope.spawn(|| {
                let mut rng = Rng::new(9);
                while !stop.load(Ordering::Relaxed) {
                    let set = SetAttr {
                        size: Some(4 * PART + rng.below(2 << 20)),
                        ..SetAttr::default()
                    };
                    replica.set_attr(ino, &set).unwrap();
                    replica.cursor().unwrap();
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    replica.copy_file("/f", "/copy").unwrap();
                    replica.gc().unwrap();
                }
            });
            let parts: Vec<Vec<u8>> = writers.into_iter().map(|w| w.join().unwrap()).collect();
            stop.store(true, Ordering::Relaxed);
            let got = replica.read_file("/f").unwrap();
            assert_same(&got[..4 * PART as usize], &parts.concat(), "/f");
        });
        assert_clean(&replica);
    });
}
