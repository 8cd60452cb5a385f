//! A server that is killed at the worst moment leaves nothing that hangs.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use cairn_engine::Replica;
use cairn_mounts::fuse::{Mount, MountOptions};

use crate::child::{Job, say};
use crate::common::{Mounted, Place, can_mount};
use crate::remote::Remote;

/// Long enough for a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(30);

fn in_time<T: Send + 'static>(what: &str, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || done.send(f()));
    match finished.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(error) => panic!("{what} hangs: {error}"),
    }
}

/// Keeps the directory busy in which the server invalidates names all the time.
fn disturb(dir: &Path, stop: &mpsc::Receiver<()>) {
    for round in 0_u64.. {
        let path = dir.join(format!("g{}", round % 8));
        if stop.try_recv() != Err(mpsc::TryRecvError::Empty) {
            return;
        }
        let _ = fs::write(&path, b"from outside");
        let _ = fs::metadata(dir.join(format!("f{}", round % 8)));
        let _ = fs::remove_file(&path);
    }
}

/// Each round kills the server at another moment of its work, with processes that wait for it.
#[test]
fn a_kill_in_the_middle_of_an_invalidation_leaves_no_hanging_mount() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let at = place.at().to_path_buf();
    for round in 0..rounds() {
        let mut server = Job::start("serve", &at);
        assert_eq!(server.hear(), "mounted");
        let disturbers: Vec<_> = (0..3)
            .map(|_| {
                let (stop, stopped) = mpsc::channel();
                let busy = at.join("busy");
                (stop, std::thread::spawn(move || disturb(&busy, &stopped)))
            })
            .collect();
        std::thread::sleep(Duration::from_micros(5_000 + round * 7_919 % 40_000));
        server.process.kill().unwrap();
        let path = at.clone();
        // Ends the connection where the kernel could not by itself.
        let next = in_time("the next start", move || {
            let next = Remote::start();
            next.mount(&path, false).map(|()| next)
        });
        let next = next.unwrap_or_else(|error| panic!("round {round}: {error}"));
        in_time("the killed process", move || server.process.wait().unwrap());
        for (stop, disturber) in disturbers {
            let _ = stop.send(());
            in_time("a process that used the mount", move || {
                disturber.join().unwrap();
            });
        }
        next.unmount()
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(
            fs::read_dir(&at).unwrap().count(),
            0,
            "nothing stays mounted"
        );
    }
}

/// Killed while others read, write, map and list: each of them gets an error and goes on.
#[test]
fn a_kill_in_the_middle_of_work_ends_it_for_everyone() {
    if !can_mount() {
        return;
    }
    for round in 0..rounds() {
        let mut m = Mounted::new().unwrap();
        let users: Vec<_> = (0..3)
            .map(|user| {
                let root = m.root().to_path_buf();
                std::thread::spawn(move || use_until_it_fails(&root, user))
            })
            .collect();
        std::thread::sleep(Duration::from_micros(2_000 + round * 6_151 % 20_000));
        m.replica.kill();
        for user in users {
            in_time("a process that used the mount", move || {
                user.join().unwrap();
            });
        }
        m.abandon();
    }
}

/// A process that uses what it serves cannot end by itself when it is killed while it waits for
/// its own answer: the next mount at the same place sets it free.
#[test]
fn a_killed_server_that_used_its_own_mount_is_cleared_away() {
    if !can_mount() {
        return;
    }
    let place = Place::new();
    let at = place.at().to_path_buf();
    for round in 0..rounds() / 2 {
        let mut server = Job::start("serve-and-use", &at);
        assert_eq!(server.hear(), "mounted");
        std::thread::sleep(Duration::from_micros(2_000 + round * 6_151 % 20_000));
        server.process.kill().unwrap();
        let path = at.clone();
        let next = in_time("the next start", move || {
            let next = Remote::start();
            next.mount(&path, false).map(|()| next)
        });
        let next = next.unwrap_or_else(|error| panic!("round {round}: {error}"));
        in_time("the killed process", move || server.process.wait().unwrap());
        next.unmount()
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}

/// What no process should do.
pub(crate) fn serve_and_use(at: &Path) {
    let mount = Mount::new(Replica::in_memory().unwrap(), at, MountOptions::default()).unwrap();
    for user in 0..3 {
        let root = mount.path().to_path_buf();
        std::thread::spawn(move || use_until_it_fails(&root, user));
    }
    say("mounted");
    mount.wait();
}

fn use_until_it_fails(root: &Path, user: usize) {
    for round in 0_u64.. {
        let path = root.join(format!("{user}-{}", round % 5));
        let outcome = fs::write(&path, vec![b'x'; 100_000])
            .and_then(|()| fs::read(&path))
            .and_then(|_| fs::read_dir(root).map(Iterator::count))
            .and_then(|_| fs::File::open(&path)?.sync_all())
            .and_then(|()| fs::remove_file(&path));
        if let Err(error) = outcome {
            // Another user's file may go while it is listed; anything else is the end.
            if error.kind() != std::io::ErrorKind::NotFound {
                return;
            }
        }
    }
}

/// Kills in each test here.
fn rounds() -> u64 {
    std::env::var("CAIRN_KILLS").map_or(20, |kills| kills.parse().unwrap())
}
