//! Commands in a sandbox: a daemon in another process, with a mount of its own.

use cairn::exec::{Ended, ExecOptions, Synced};
use cairn::{Workspace, block_on};

use crate::daemons::Daemon;
use crate::scratch::{Scratch, can_mount};

/// A workspace in memory with a sandbox.
fn with(daemon: &Daemon, scheme: &str) -> Workspace {
    let builder = Workspace::builder().backend("box", daemon.sandbox(scheme));
    block_on(builder.in_memory()).unwrap()
}

#[test]
fn x1_a_command_sees_what_was_written_here_and_what_it_writes_is_here() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    for (scheme, more) in [("ws", &["--plain"][..]), ("quic", &[]), ("wss", &[])] {
        let daemon = Daemon::new(&scratch, scheme, more);
        let workspace = with(&daemon, scheme);
        let fs = workspace.fs().blocking();
        fs.mkdir("/src").unwrap();
        fs.write_file("/src/in", b"from the host").unwrap();
        let options = ExecOptions {
            cwd: Some("src".into()),
            ..ExecOptions::default()
        };
        let script = "cat in; printf 'from the sandbox' > out; pwd";
        let exec = block_on(workspace.exec(script, options)).unwrap();
        let output = block_on(exec.result()).unwrap();
        let at = daemon.mount.join("src");
        assert_eq!(output.text(), format!("from the host{}\n", at.display()));
        assert_eq!(output.exit.ended, Ended::Exited);
        assert_eq!(output.synced, Synced::Complete);
        assert_eq!(fs.read_file("/src/out").unwrap(), b"from the sandbox");
        assert!(block_on(workspace.pending(None)).unwrap().is_empty());
        block_on(workspace.close()).unwrap();
        daemon.end();
    }
}
