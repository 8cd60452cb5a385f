//! A hub for a test: a child of this process that serves a replica.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::program::{cairn, ended};
use crate::scratch::Scratch;

pub(crate) struct Hub {
    child: Child,
    urls: Vec<String>,
    pub(crate) fingerprint: Option<String>,
}

impl Hub {
    /// Serves `NAME.cairn` at any free port.
    pub(crate) fn new(scratch: &Scratch, name: &str, more: &[&str]) -> Self {
        Self::at(scratch, name, "127.0.0.1:0", more)
    }

    /// Serves `NAME.cairn` at an address.
    pub(crate) fn at(scratch: &Scratch, name: &str, address: &str, more: &[&str]) -> Self {
        let mut child = cairn()
            .args(["serve", &format!("{name}.cairn"), "--listen", address])
            .args(more)
            .current_dir(&**scratch)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(line.starts_with("serving "), "{line:?}");
        // It is not to wait for somebody to read what it says later.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let words = line
            .split([' ', ',', ';'])
            .filter(|word| word.contains("://"));
        let urls = words.map(str::to_owned).collect();
        let known = line.split("fingerprint ").nth(1);
        let known = known.map(|rest| rest.split(';').next().unwrap().trim().to_owned());
        Self {
            child,
            urls,
            fingerprint: known,
        }
    }

    /// Where it is, over QUIC or WebSocket.
    pub(crate) fn url(&self, scheme: &str) -> &str {
        let mut urls = self.urls.iter();
        urls.find(|url| url.starts_with(&format!("{scheme}://")))
            .unwrap()
    }

    /// Host and port.
    pub(crate) fn address(&self) -> String {
        self.urls[0].split('/').nth(2).unwrap().to_owned()
    }

    /// Ends it as Ctrl-C does.
    pub(crate) fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        assert!(ended(&mut self.child).success());
    }

    /// Ends it with `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        ended(&mut self.child);
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = ended(&mut self.child);
        }
    }
}
