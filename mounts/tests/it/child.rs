//! A second process: this test binary again, with a job in its environment.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cairn_engine::Replica;
use cairn_mounts::fuse::{Mount, MountOptions};
use rustix::fs::FlockOperation;

use crate::raw::Map;
use crate::remote;

const JOB: &str = "CAIRN_TEST_JOB";
const AT: &str = "CAIRN_TEST_AT";

/// This test binary, told to do a job.
pub(crate) fn command(job: &str, at: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["child::work", "--exact", "--nocapture", "--test-threads=1"])
        .env(JOB, job)
        .env(AT, at);
    command
}

/// A running job. Lines go to and fro. It is killed when this is dropped.
pub(crate) struct Job {
    pub(crate) process: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Job {
    pub(crate) fn start(job: &str, at: &Path) -> Self {
        Self::spawn(command(job, at))
    }

    pub(crate) fn start_as(job: &str, at: &Path, uid: u32) -> Self {
        let mut command = command(job, at);
        command.uid(uid).gid(uid);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        Self {
            to: process.stdin.take(),
            from: BufReader::new(process.stdout.take().unwrap()),
            process,
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.to.as_ref().unwrap(), "{line}").unwrap();
    }

    /// The next line of the job; what the test harness prints is left out.
    pub(crate) fn hear(&mut self) -> String {
        self.hear_until_end().expect("the job ended")
    }

    /// As [`Self::hear`]; `None` at the end of the job.
    pub(crate) fn hear_until_end(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.from.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(at) = line.find('>') {
                return Some(line[at + 1..].trim_end().to_string());
            }
        }
    }

    pub(crate) fn end(mut self) {
        drop(self.to.take());
        let mut rest = String::new();
        self.from.read_to_string(&mut rest).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}: {rest}");
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn say(line: &str) {
    println!(">{line}");
}

pub(crate) fn wait() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line
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
        "map-look" => {
            let map = Map::shared(&open(at), 1 << 20);
            loop {
                match wait().trim() {
                    "" => break,
                    at => say(&map.get(at.parse().unwrap()).to_string()),
                }
            }
        }
        "append" => {
            let mut file = OpenOptions::new().append(true).open(at).unwrap();
            for line in 0..500 {
                file.write_all(format!("child {line:04}\n").as_bytes())
                    .unwrap();
            }
        }
        "write" => OpenOptions::new()
            .write(true)
            .open(at)
            .unwrap()
            .write_all(b"x")
            .unwrap(),
        "truncate" => open(at).set_len(1).unwrap(),
        "open-truncate" => drop(
            OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(at)
                .unwrap(),
        ),
        "write-name" => {
            std::fs::write(at, at.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        "read-name" => {
            let content = std::fs::read(at).unwrap();
            assert_eq!(content, at.file_name().unwrap().as_encoded_bytes());
        }
        "random" => crate::random::work(at),
        "mount-refused" => crate::mountpoints::mount_refused(at),
        remote::JOB => remote::serve(at),
        "serve" => serve(at),
        "serve-and-use" => crate::killed::serve_and_use(at),
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
