//! A daemon for a test: a child of this process that a workspace's commands run in.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use cairn::backend::Sandbox;
use cairn::sync::Fingerprint;
use rustix::process::{Pid, Signal, kill_process};

use crate::program::{cairn, ended};
use crate::scratch::detach;

/// What hosts show.
pub(crate) const TOKEN: &str = "a secret";

pub(crate) struct Daemon {
    child: Child,
    pub(crate) urls: Vec<String>,
    fingerprint: Option<Fingerprint>,
    pub(crate) mount: PathBuf,
}

impl Daemon {
    /// One that mounts `NAME` in a directory, and listens at any free port.
    pub(crate) fn new(dir: &Path, name: &str, more: &[&str]) -> Self {
        Self::at(dir, name, "127.0.0.1:0", more)
    }

    /// One that listens at an address.
    pub(crate) fn at(dir: &Path, name: &str, address: &str, more: &[&str]) -> Self {
        Self::start(dir, name, &[&["--listen", address], more].concat())
    }

    /// One that does what the arguments say.
    pub(crate) fn start(dir: &Path, name: &str, arguments: &[&str]) -> Self {
        let mount = dir.join(name);
        let mut child = cairn()
            .args(["daemon", "--mount"])
            .arg(&mount)
            .args(arguments)
            .env("CAIRN_TOKEN", TOKEN)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.contains("the workspace is at"), "{line:?}");
        // It is not to wait for somebody to read what it says later.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::stderr()));
        let words = line.split([' ', ',', ';']);
        let urls = words.filter(|word| word.contains("://")).map(str::to_owned);
        let known = line.split("fingerprint ").nth(1);
        let known = known.map(|rest| rest.split(';').next().unwrap().trim().parse().unwrap());
        Self {
            child,
            urls: urls.collect(),
            fingerprint: known,
            mount,
        }
    }

    /// Host and port.
    pub(crate) fn address(&self) -> &str {
        self.urls[0].split('/').nth(2).unwrap()
    }

    /// A backend that reaches it by this scheme.
    pub(crate) fn sandbox(&self, scheme: &str) -> Sandbox {
        self.sandbox_at(&format!("{scheme}://{}", self.address()))
    }

    /// A backend that reaches it by this address.
    pub(crate) fn sandbox_at(&self, url: &str) -> Sandbox {
        let sandbox = Sandbox::at(url).unwrap().token(TOKEN);
        match self.fingerprint {
            Some(fingerprint) => sandbox.fingerprint(fingerprint),
            None => sandbox,
        }
    }

    /// Asks something by HTTP: the status and the body.
    pub(crate) fn http(&self, method: &str, path: &str, token: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// Ends it as a container is ended.
    pub(crate) fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert!(ended(&mut self.child).success());
        assert!(std::fs::read_dir(&self.mount).unwrap().next().is_none());
    }

    /// Ends it with `kill -9`. What it leaves mounted is in the way of nobody.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        ended(&mut self.child);
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it, or lets it go on, without a word.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = ended(&mut self.child);
            detach(&self.mount);
        }
    }
}
