//! `cairn mcp`, driven by the protocol's official client for Python.
//!
//! `CAIRN_MCP_PYTHON` names a Python that has the package `mcp`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use std::time::Duration;

use serde_json::json;

use crate::program::{cairn, ended, ran, until};
use crate::scratch::{Scratch, can_mount};

/// The session that is played: what it asserts is the test.
const CLIENT: &str = r#"
import asyncio, base64, sys
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

program, replica = sys.argv[1:3]

def text(result):
    return result.content[0].text

async def writing(session):
    info = await session.initialize()
    names = [tool.name for tool in (await session.list_tools()).tools]
    assert names == ["read", "ls", "find", "grep", "write", "edit", "delete", "exec"], names
    for path, content in [("/src/a.py", "print('one')\n"), ("/logo.svg", "<svg/>")]:
        made = await session.call_tool("write", {"path": path, "content": content})
        assert not getattr(made, "isError", getattr(made, "is_error", False)), made
    ran = await session.call_tool("exec", {"command": "python3 src/a.py; printf '\\211PNG' > p.png"})
    assert text(ran) == "one\n[exit code 0]", text(ran)
    edits = [{"oldText": "one", "newText": "two"}]
    edited = await session.call_tool("edit", {"path": "/src/a.py", "edits": edits})
    assert "-print('one')\n+print('two')\n" in text(edited), text(edited)
    twice = await session.call_tool("edit", {"path": "/src/a.py", "edits": [{"oldText": "t", "newText": ""}]})
    assert getattr(twice, "isError", getattr(twice, "is_error", False)) and "more than once" in text(twice), twice
    assert "two" in text(await session.call_tool("read", {"path": "src/a.py"}))
    image = await session.call_tool("read", {"path": "p.png"})
    assert base64.b64decode(image.content[1].data) == b"\x89PNG", image
    found = await session.call_tool("grep", {"query": "two"})
    assert text(found) == "/src/a.py:1:print('two')\n", text(found)
    try:
        unknown = await session.call_tool("nonsense", {})
        assert getattr(unknown, "isError", getattr(unknown, "is_error", False)), unknown
    except Exception as error:
        assert "there is no tool" in str(error), error

async def reading(session):
    await session.initialize()
    names = [tool.name for tool in (await session.list_tools()).tools]
    assert names == ["read", "ls", "find", "grep"], names
    assert text(await session.call_tool("ls", {})) == "logo.svg\np.png\nsrc/\n"

async def main():
    for arguments, play in [(["--create"], writing), (["--read-only"], reading)]:
        server = StdioServerParameters(command=program, args=["mcp", replica, *arguments])
        async with stdio_client(server) as (read, write):
            async with ClientSession(read, write) as session:
                await play(session)

asyncio.run(asyncio.wait_for(main(), 90))
print("played")
"#;

#[test]
fn an_independent_client_works_with_the_tools() {
    if !can_mount() {
        return;
    }
    let python = std::env::var_os("CAIRN_MCP_PYTHON").unwrap_or_else(|| "python3".into());
    let has = Command::new(&python).args(["-c", "import mcp"]).output();
    if !has.is_ok_and(|has| has.status.success()) {
        let why = "no Python with the package `mcp`; CAIRN_MCP_PYTHON names one";
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{why}"
        );
        // Past the test harness.
        let _ = writeln!(std::io::stderr(), "SKIPPED, {why}");
        return;
    }
    let scratch = Scratch::new();
    let mut client = Command::new(&python);
    client.args(["-c", CLIENT, env!("CARGO_BIN_EXE_cairn")]);
    client.arg(scratch.join("w.cairn"));
    assert_eq!(ran(&mut client, b"").done().text(), "played\n");
    // The sessions have ended in order.
    scratch.cairn("check w.cairn").done();
}

#[test]
fn what_cannot_be_served_is_said() {
    let scratch = Scratch::new();
    scratch
        .cairn("mcp nowhere.cairn")
        .ended(3)
        .says(&["nowhere.cairn"]);
    // A client that goes away at once.
    scratch
        .cairn("mcp w.cairn --create")
        .ended(5)
        .says(&["did not begin"]);
    scratch.fed("mcp w.cairn", b"nonsense\n").ended(5);
}

/// The process that serves a mount is killed with `-9` while a command works on
/// that mount. Nobody is left that waits for it, the next start ends what the
/// command had started, and the replica is whole.
#[test]
fn a_killed_server_leaves_nothing_that_works_on() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let temporary = temporary(&scratch);
    let mut server = start(&scratch, "--create");
    let script = "sh -c 'echo up > up; while :; do cat up >> more; done' & sleep 77.09; true";
    say(&mut server, &begin());
    say(&mut server, &exec(script));
    let running = || processes("77.09") > 0 && processes("cat up >> more") > 0;
    until("the command works", running);
    // Longer than a crash may lose.
    std::thread::sleep(Duration::from_millis(500));
    server.kill().unwrap();
    server.wait().unwrap();

    let mut next = start(&scratch, "--create");
    say(&mut next, &begin());
    say(&mut next, &exec("true"));
    let gone = || processes("77.09") == 0 && processes("cat up >> more") == 0;
    until("all of it is gone", gone);
    drop(next.stdin.take());
    ended(&mut next);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(temporary.to_str().unwrap()), "{mounts}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    scratch.cairn("check w.cairn").done();
    assert_eq!(scratch.cairn("cat w.cairn/up").done().text(), "up\n");
}

/// Sessions of a replica that is mounted are in the process that has it mounted.
#[test]
fn a_mounted_replica_is_worked_on_through_its_mount() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let mount = scratch.join("w");
    let mounted = scratch.mount("w");
    std::fs::write(mount.join("in"), "here\n").unwrap();
    let mut sessions = [(); 2].map(|()| Talk::new(&scratch, &[]));
    // Two at once, and one that may only read.
    for (n, talk) in sessions.iter_mut().enumerate() {
        let other = format!("out-{n}");
        let said = talk.exec(&format!("pwd; cat in; sleep 0.2; echo {n} > {other}"));
        assert_eq!(said, format!("{}\nhere\n[exit code 0]", mount.display()));
        assert_eq!(
            std::fs::read_to_string(mount.join(&other)).unwrap(),
            format!("{n}\n")
        );
        let write = json!({"path": format!("/made-{n}"), "content": "by a tool"});
        talk.call("write", &write);
        let made = std::fs::read_to_string(mount.join(format!("made-{n}")));
        assert_eq!(made.unwrap(), "by a tool");
    }
    // Named by where it is mounted.
    let mut reader = Talk::of(&scratch, "w", &["--read-only"]);
    let listed = reader.call("ls", &json!({}));
    assert_eq!(listed, "in\nmade-0\nmade-1\nout-0\nout-1\n");
    // What a session runs ends with it, and the mount stays.
    let [first, mut second] = sessions;
    second.send("exec", &json!({"command": "touch up; sleep 78.41"}));
    until("the command works", || mount.join("up").exists());
    second.child.kill().unwrap();
    ended(&mut second.child);
    until("it has ended", || processes("78.41") == 0);
    assert!(first.end().success());
    std::fs::write(mount.join("later"), "later\n").unwrap();
    // The end of the owner is that of a session.
    drop(mounted);
    assert_eq!(ended(&mut reader.child).code(), Some(5));
    // Without a mount it is as it was.
    let mut alone = Talk::new(&scratch, &[]);
    assert_eq!(alone.exec("cat later"), "later\n[exit code 0]");
    assert!(alone.end().success());
}

/// A session whose answers are read.
struct Talk {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Talk {
    fn new(scratch: &Scratch, arguments: &[&str]) -> Self {
        Self::of(scratch, "w.cairn", arguments)
    }

    fn of(scratch: &Scratch, replica: &str, arguments: &[&str]) -> Self {
        let mut command = cairn();
        command.args(["mcp", replica]).args(arguments);
        command.current_dir(&**scratch);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        say(&mut child, &begin());
        let mut this = Self { child, said };
        this.answer();
        this
    }

    fn send(&mut self, tool: &str, arguments: &serde_json::Value) {
        let call = json!({"name": tool, "arguments": arguments});
        let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call});
        say(&mut self.child, &format!("{call}\n"));
    }

    fn answer(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The text that a tool gives.
    fn call(&mut self, tool: &str, arguments: &serde_json::Value) -> String {
        self.send(tool, arguments);
        let answer = self.answer();
        let text = &answer["result"]["content"][0]["text"];
        text.as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    }

    fn exec(&mut self, script: &str) -> String {
        self.call("exec", &json!({"command": script}))
    }

    /// Ends it as a client does.
    fn end(mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        ended(&mut self.child)
    }
}

fn start(scratch: &Scratch, argument: &str) -> Child {
    let mut command = cairn();
    command
        .args(["mcp", "w.cairn", argument])
        .current_dir(&**scratch);
    command.env("TMPDIR", temporary(scratch));
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// Where servers make their mounts.
fn temporary(scratch: &Scratch) -> PathBuf {
    let dir = scratch.join("tmp");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn say(server: &mut Child, lines: &str) {
    server
        .stdin
        .as_mut()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
}

fn begin() -> String {
    let about = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about});
    let begun = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    format!("{hello}\n{begun}\n")
}

fn exec(script: &str) -> String {
    let call = json!({"name": "exec", "arguments": {"command": script}});
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call});
    format!("{call}\n")
}

/// Processes whose command line has this in it, but not the request that started them.
fn processes(words: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(words))
        .count()
}
