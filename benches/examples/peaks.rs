//! The most memory that each end of a sync had: a hub, who pushes a tree and who
//! clones it are a process each.
//!
//! `cargo run --release -p cairn-benches --example peaks -- PLACE FILES [BYTES] [clone|lazy]`
//!
//! The files are in directories of 1 000. Who fills the replica that pushes is
//! another process, so that what it has in memory does not count.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use cairn::sync::{Follow, Hub, Serve, Upstream};
use cairn::{Options, Replica};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["fill", place, files, bytes] => fill(Path::new(place), files.parse()?, bytes.parse()?),
        ["follow", place, address, lazy] => follow(Path::new(place), address, lazy == "lazy"),
        [place, files] => all(Path::new(place), files, "100", "clone"),
        [place, files, bytes] => all(Path::new(place), files, bytes, "clone"),
        [place, files, bytes, lazy] => all(Path::new(place), files, bytes, lazy),
        _ => Err("usage: peaks PLACE FILES [BYTES] [clone|lazy]".into()),
    }
}

fn all(place: &Path, files: &str, bytes: &str, lazy: &str) -> Result {
    let place = tempfile::tempdir_in(place)?;
    let (a, b) = (place.path().join("a.cairn"), place.path().join("b.cairn"));
    let path = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or("the place is no text")
    };
    let run = |words: &[&str]| -> Result {
        let done = Command::new(std::env::current_exe()?)
            .args(words)
            .status()?;
        done.success().then_some(()).ok_or("a part failed".into())
    };
    run(&["fill", &path(&a)?, files, bytes])?;
    let hub = Replica::open(place.path().join("hub.cairn"), Options::default())?;
    let serve = Serve::builder()
        .listen("127.0.0.1:0".parse()?)
        .hub(Hub::new("w", &hub)?)
        .start()?;
    let address = format!("ws://{}/w", serve.address());
    run(&["follow", &path(&a)?, &address, "push"])?;
    say("hub, after the push", None)?;
    run(&["follow", &path(&b)?, &address, lazy])?;
    say("hub, after the clone", None)
}

fn fill(place: &Path, files: u64, bytes: usize) -> Result {
    let replica = Replica::open(place, Options::default())?;
    let mut content = vec![b'x'; bytes];
    for file in 0..files {
        let parent = format!("/{}", file / 1_000);
        if file % 1_000 == 0 {
            replica.mkdir_all(&parent)?;
        }
        let len = content.len().min(8);
        content[..len].copy_from_slice(&file.to_le_bytes()[..len]);
        replica.write_file(format!("{parent}/{file}"), &content)?;
    }
    replica.sync()?;
    Ok(())
}

fn follow(place: &Path, address: &str, lazy: bool) -> Result {
    let replica = Replica::open(place, Options::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let begun = Instant::now();
    let upstream = Upstream::new(&address.parse()?).lazy(lazy);
    let follow = {
        let _inside = runtime.enter();
        Follow::start(&replica, &upstream)?
    };
    follow.connected()?;
    follow.fence()?;
    say("client", Some(begun))
}

fn say(what: &str, begun: Option<Instant>) -> Result {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let took = begun.map_or_else(String::new, |b| {
        format!(" in {:.2} s", b.elapsed().as_secs_f64())
    });
    let peak = peak.unwrap_or_default().trim();
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    writeln!(
        std::io::stdout(),
        "{what}{took}: at most {peak}, {}.{:02} s of work",
        used.tv_sec,
        used.tv_nsec / 10_000_000
    )?;
    Ok(())
}
