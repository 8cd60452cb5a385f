//! A daemon: who may come to it, where it goes, and what it tells.

use std::net::SocketAddr;

use cairn::backend::Sandbox;
use cairn::block_on;
use cairn::exec::Synced;

use crate::daemons::{Daemon, TOKEN};
use crate::program::until;
use crate::sandbox::with;
use crate::scratch::{Scratch, can_mount};

#[test]
fn x3_a_daemon_has_one_workspace_and_takes_only_who_has_its_token() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &[]);
    let connect = |sandbox: Sandbox| {
        let workspace = with(sandbox);
        let error = block_on(workspace.ready(None)).unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    };
    let error = connect(daemon.sandbox("quic").token("wrong"));
    assert!(error.contains("give the sandbox the token"), "{error}");

    let first = with(daemon.sandbox("quic"));
    block_on(first.run("echo mine > file")).unwrap();
    // A second host, with another workspace: refused, and the first is not disturbed.
    let error = connect(daemon.sandbox("quic"));
    assert!(error.contains("start another daemon"), "{error}");
    assert_eq!(block_on(first.run("cat file")).unwrap().text(), "mine\n");
    block_on(first.close()).unwrap();
    daemon.end();
}

#[test]
fn a_daemon_that_dials_is_as_good() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let nobody = Sandbox::listen(SocketAddr::from(([127, 0, 0, 1], free_port())));
    let workspace = with(nobody.patience(std::time::Duration::from_millis(50)));
    let error = block_on(workspace.ready(None)).unwrap_err();
    let error = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.contains("no daemon has come"), "{error}");
    for scheme in ["ws", "quic"] {
        let port = free_port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut sandbox = Sandbox::listen(address).token(TOKEN);
        if scheme == "quic" {
            let identity = cairn::sync::Identity::open_or_create(&scratch.join("host")).unwrap();
            sandbox = sandbox.identity(identity);
        }
        let workspace = with(sandbox);
        workspace.fs().blocking().write_file("/in", b"in").unwrap();
        let url = format!("{scheme}://{address}");
        let daemon = Daemon::start(&scratch, scheme, &["--dial", &url]);
        let output = block_on(workspace.run("cat in; echo out > out")).unwrap();
        assert_eq!(
            (output.text().as_str(), output.synced),
            ("in", Synced::Complete)
        );
        assert_eq!(
            workspace.fs().blocking().read_file("/out").unwrap(),
            b"out\n"
        );
        daemon.kill();
        // The next one comes to the same host, and gets the workspace.
        let daemon = Daemon::start(&scratch, scheme, &["--dial", &url]);
        until("the next daemon has come", || {
            block_on(workspace.run("cat out")).is_ok_and(|output| output.text() == "out\n")
        });
        block_on(workspace.close()).unwrap();
        daemon.end();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_daemon_tells_how_it_is() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let daemon = Daemon::new(&scratch, "w", &["--plain"]);
    let workspace = with(daemon.sandbox("ws"));
    let runtime = block_on(workspace.ready(None)).unwrap();
    block_on(workspace.run("echo x > file")).unwrap();
    let json = |(code, body): (u16, String)| {
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        (code, value)
    };
    let (code, health) = json(daemon.http("GET", "/health", ""));
    assert_eq!((code, &health["status"]), (200, &"ok".into()));
    let (code, info) = json(daemon.http("GET", "/info", TOKEN));
    assert_eq!((code, &info["runtime"]), (200, &runtime.as_str().into()));
    assert_eq!(info["mount"], daemon.mount.to_str().unwrap());
    let (code, stats) = json(daemon.http("GET", "/stats", TOKEN));
    assert_eq!((code, &stats["edits_pending"]), (200, &0.into()));
    std::fs::write(daemon.mount.join("edited"), "there").unwrap();
    let (code, checkpoint) = json(daemon.http("POST", "/checkpoint", TOKEN));
    assert_eq!((code, &checkpoint["connected"]), (200, &true.into()));
    assert!(checkpoint["cursor"].as_str().unwrap().contains(':'));
    until("the checkpoint is here", || {
        workspace
            .fs()
            .blocking()
            .read_file("/edited")
            .is_ok_and(|text| text == b"there")
    });
    let (code, metrics) = daemon.http("GET", "/metrics", TOKEN);
    assert!(
        code == 200 && metrics.contains("cairn_daemon_connected 1"),
        "{metrics}"
    );
    for path in ["/info", "/stats", "/metrics", "/checkpoint"] {
        assert_eq!(daemon.http("GET", path, "wrong").0, 401, "{path}");
    }
    assert_eq!(daemon.http("GET", "/checkpoint", TOKEN).0, 405);
    assert_eq!(daemon.http("GET", "/other", TOKEN).0, 404);
    block_on(workspace.close()).unwrap();
    daemon.end();
}

#[test]
fn what_a_daemon_cannot_do_is_said_before_it_begins() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    scratch.sh("mkdir full && touch full/file");
    let line = "daemon --mount full --listen 127.0.0.1:0";
    scratch.cairn(line).ended(4).says(&["full"]);
    let line = "daemon --mount none --plain --listen 0.0.0.0:0";
    scratch.cairn(line).ended(5).says(&["certificate"]);
    let line = "daemon --mount none --listen 0.0.0.0:0";
    scratch.cairn(line).ended(5).says(&["token"]);
    let line = "daemon --mount none --dial http://x";
    scratch.cairn(line).ended(2).says(&["quic://"]);
}
