//! A second process: this test binary again, with a job in its environment.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cairn_engine::Replica;
use cairn_mounts::fuse::{Mount, MountOptions};
use rustix::fs::FlockOperation;

use crate::map::Map;

const JOB: &str = "CAIRN_TEST_JOB";
const AT: &str = "CAIRN_TEST_AT";

/// A running job. Lines go to and fro.
pub(crate) struct Job {
    pub(crate) process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Job {
    pub(crate) fn start(job: &str, at: &Path) -> Self {
        Self::start_as(job, at, None)
    }

    pub(crate) fn start_as(job: &str, at: &Path, uid: Option<u32>) -> Self {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["child::work", "--exact", "--nocapture", "--test-threads=1"])
            .env(JOB, job)
            .env(AT, at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut process = command.spawn().unwrap();
        Self {
            to: process.stdin.take().unwrap(),
            from: BufReader::new(process.stdout.take().unwrap()),
            process,
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    /// The next line of the job; what the test harness prints is left out.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "the job ended");
            if let Some(at) = line.find('>') {
                return line[at + 1..].trim_end().to_string();
            }
        }
    }

    pub(crate) fn end(mut self) {
        drop(self.to);
        let mut rest = String::new();
        self.from.read_to_string(&mut rest).unwrap();
        assert!(self.process.wait().unwrap().success(), "{rest}");
    }
}

fn say(line: &str) {
    println!(">{line}");
}

fn wait() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

fn open(at: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(at).unwrap()
}

/// Does the job; nothing in an ordinary run of the tests.
#[test]
fn work() {
    let Ok(job) = std::env::var(JOB) else { return };
    let at = std::env::var_os(AT).unwrap();
    let at = Path::new(&at);
    match job.as_str() {
        "flock" => {
            let file = open(at);
            rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
            say("locked");
            wait();
        }
        "fcntl" => {
            let file = open(at);
            rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
            say("locked");
            wait();
        }
        "map" => {
            let file = open(at);
            let map = Map::shared(&file, 4096);
            say("mapped");
            wait();
            say(&map.get(0).to_string());
            map.set(1, b'c');
            say("written");
            wait();
        }
        "append" => {
            let mut file = OpenOptions::new().append(true).open(at).unwrap();
            for line in 0..500 {
                file.write_all(format!("child {line:04}\n").as_bytes()).unwrap();
            }
        }
        "write" => OpenOptions::new()
            .write(true)
            .open(at)
            .unwrap()
            .write_all(b"x")
            .unwrap(),
        "truncate" => open(at).set_len(1).unwrap(),
        "open-truncate" => drop(OpenOptions::new().write(true).truncate(true).open(at).unwrap()),
        "serve" => serve(at),
        other => panic!("no such job: {other}"),
    }
}

/// Mounts, and changes the replica from within for as long as it is let.
fn serve(at: &Path) {
    let replica = Replica::in_memory().unwrap();
    replica.mkdir("/busy").unwrap();
    let mount = Mount::new(replica.clone(), at, MountOptions::default()).unwrap();
    std::thread::spawn(move || {
        for round in 0_u64.. {
            let name = format!("/busy/f{}", round % 8);
            replica.write_file(&name, b"from within").unwrap();
            let _ = replica.remove(&name);
        }
    });
    say("mounted");
    mount.wait();
}
