//! The most memory that each end of a sync had: a hub, who pushes a tree and who
//! clones it are a process each.
//!
//! `cargo run --release -p cairn-benches --example peaks -- PLACE FILES [BYTES] [clone|lazy|rules|serve] [edit|chmod|rename|remove|anew]`
//!
//! The files are in directories of 1 000. With a last word, the first replica then
//! does that to every file, and the second follows; for `anew`, the hub is replaced
//! by another to which the first has pushed everything. With `rules` the second
//! ignores every tenth file, and with `serve` it is a hub, too. Who fills or changes
//! the replica that pushes is another process, so that what it has in memory does
//! not count.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use cairn::sync::{Follow, Hub, Serve, SyncError, Upstream};
use cairn::{Options, Replica};

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["fill", place, files, bytes] => fill(Path::new(place), files.parse()?, bytes.parse()?),
        ["change", place, files, bytes, how] => {
            change(Path::new(place), files.parse()?, bytes.parse()?, how)
        }
        ["follow", place, address, lazy, what] => {
            follow(Path::new(place), address, lazy, what)
        }
        [place, files] => all(Path::new(place), files, "100", "clone", None),
        [place, files, bytes] => all(Path::new(place), files, bytes, "clone", None),
        [place, files, bytes, lazy] => all(Path::new(place), files, bytes, lazy, None),
        [place, files, bytes, lazy, how] => all(Path::new(place), files, bytes, lazy, Some(how)),
        _ => Err("usage: peaks PLACE FILES [BYTES] [clone|lazy|rules|serve] [edit|chmod|rename|remove|anew]".into()),
    }
}

fn all(place: &Path, files: &str, bytes: &str, lazy: &str, how: Option<&str>) -> Result {
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
    let serve = |name: &str| -> Result<(Serve, String)> {
        let hub = Replica::open(place.path().join(name), Options::default())?;
        let serve = serve(&hub)?;
        let address = format!("ws://{}/w", serve.address());
        Ok((serve, address))
    };
    let (_first, mut address) = serve("hub.cairn")?;
    let push = |address: &str, what: &str| -> Result {
        run(&["follow", &path(&a)?, address, "push", what])?;
        say("hub, after that", None)?;
        // What follows is measured by itself.
        Ok(std::fs::write("/proc/self/clear_refs", "5")?)
    };
    let pull = |address: &str, what: &str| -> Result {
        run(&["follow", &path(&b)?, address, lazy, what])?;
        say("hub, after that", None)?;
        Ok(std::fs::write("/proc/self/clear_refs", "5")?)
    };
    push(&address, "push of a tree")?;
    pull(&address, "clone")?;
    let mut second = None;
    if let Some(how) = how {
        if how == "anew" {
            let (serve, other) = serve("another.cairn")?;
            (second, address) = (Some(serve), other);
        } else {
            run(&["change", &path(&a)?, files, bytes, how])?;
        }
        push(&address, &format!("push of {how}"))?;
        pull(&address, &format!("following {how}"))?;
    }
    drop(second);
    Ok(())
}

fn serve(replica: &Replica) -> Result<Serve> {
    let serve = Serve::builder()
        .listen("127.0.0.1:0".parse()?)
        .hub(Hub::new("w", replica)?)
        .start()?;
    Ok(serve)
}

/// A content that no other file has.
fn set_content(content: &mut [u8], file: u64) {
    let len = content.len().min(8);
    content[..len].copy_from_slice(&file.to_le_bytes()[..len]);
}

fn fill(place: &Path, files: u64, bytes: usize) -> Result {
    let replica = Replica::open(place, Options::default())?;
    let mut content = vec![b'x'; bytes];
    for file in 0..files {
        let parent = format!("/{}", file / 1_000);
        if file % 1_000 == 0 {
            replica.mkdir_all(&parent)?;
        }
        set_content(&mut content, file);
        replica.write_file(format!("{parent}/{file}"), &content)?;
    }
    replica.sync()?;
    Ok(())
}

fn change(place: &Path, files: u64, bytes: usize, how: &str) -> Result {
    let replica = Replica::open(place, Options::default())?;
    let mut content = vec![b'y'; bytes];
    for file in 0..files {
        let parent = format!("/{}", file / 1_000);
        let path = format!("{parent}/{file}");
        match how {
            "edit" => {
                set_content(&mut content, file);
                replica.write_file(path, &content)?;
            }
            "chmod" => {
                replica.chmod(path, 0o600)?;
            }
            "rename" => replica.rename_path(path, format!("{parent}/renamed-{file}"))?,
            "remove" if file % 1_000 == 0 => replica.remove_all(&parent)?,
            "remove" => {}
            _ => return Err("edit, chmod, rename or remove".into()),
        }
    }
    replica.sync()?;
    Ok(())
}

fn follow(place: &Path, address: &str, how: &str, what: &str) -> Result {
    let replica = Replica::open(place, Options::default())?;
    if how == "rules" {
        let store = replica.upstream()?;
        let rules = ["*7".to_owned()];
        if store.ignore_rules()? != rules {
            store.set_ignore_rules(&rules)?;
        }
    }
    let _serve = (how == "serve").then(|| serve(&replica)).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let begun = Instant::now();
    let upstream = Upstream::new(&address.parse()?).lazy(how == "lazy");
    let follow = {
        let _inside = runtime.enter();
        Follow::start(&replica, &upstream)?
    };
    follow.connected()?;
    match follow.fence() {
        // To remove everything is what is measured.
        Err(SyncError::Halted { .. }) => {
            follow.proceed();
            follow.fence()?;
        }
        done => {
            done?;
        }
    }
    say(what, Some(begun))
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
