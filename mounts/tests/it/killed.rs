//! A server that is killed at the worst moment leaves nothing that hangs.

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use cairn_engine::Replica;
use cairn_mounts::fuse::{Mount, MountOptions};

use crate::child::Job;
use crate::common::can_mount;

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

#[test]
fn a_kill_in_the_middle_of_an_invalidation_leaves_no_hanging_mount() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("m");
    for round in 0..10 {
        let mut server = Job::start("serve", &at);
        assert_eq!(server.hear(), "mounted");
        let disturbers: Vec<_> = (0..3)
            .map(|_| {
                let (stop, stopped) = mpsc::channel();
                let busy = at.join("busy");
                (stop, std::thread::spawn(move || disturb(&busy, &stopped)))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(20 + 7 * round));
        server.process.kill().unwrap();
        let path = at.clone();
        // Ends the connection where the kernel could not by itself.
        let mount = in_time("the next start", move || {
            Mount::new(Replica::in_memory().unwrap(), &path, MountOptions::default())
        });
        mount.unwrap().unmount().unwrap_or_else(|error| panic!("round {round}: {error}"));
        in_time("the killed process", move || server.process.wait().unwrap());
        for (stop, disturber) in disturbers {
            let _ = stop.send(());
            in_time("a process that used the mount", move || disturber.join().unwrap());
        }
    }
}
