//! A daemon against hosts that do not keep to the rules.

use std::time::Duration;

use bytes::Bytes;
use cairn_protocol::wire::{Blob, Text, Token};
use cairn_transports::tls::Trust;
use cairn_transports::{Channel, Dialler, SILENCE};

use super::Daemon;
use crate::exec::{Command, ExecOptions, Stdin};
use crate::remote::{
    CALL, CALLS_MAX, CANCEL, Call, CallError, CallFrame, Caller, Card, Code, Fault, Greeting, Plan,
    Purpose, REPLY, Reply, ReplyFrame, Role, decode, encode, greet,
};

const TOKEN: &str = "a secret";

fn daemon() -> Daemon {
    Daemon::builder()
        .listen("127.0.0.1:0".parse().unwrap())
        .token(TOKEN)
        .start()
        .unwrap()
}

async fn dial(daemon: &Daemon) -> Channel {
    let address = format!("{}/w", daemon.urls()[0]).parse().unwrap();
    let dialler = Dialler::new(address, Trust::Authorities).unwrap();
    dialler.dial().await.unwrap()
}

fn greeting() -> Greeting {
    let card = Card {
        workspace: 7,
        ..Card::default()
    };
    let token = Token::new(TOKEN.as_bytes()).unwrap();
    Greeting::new(Role::Host, Purpose::Exec, token, card)
}

async fn admitted(daemon: &Daemon) -> (Channel, Card) {
    let mut channel = dial(daemon).await;
    let card = greet(&mut channel, &greeting()).await.unwrap();
    (channel, card)
}

/// A test with a daemon in this process, which is ended where it may block.
fn with_daemon<F: Future<Output = ()>>(test: impl FnOnce(Daemon) -> F) {
    let daemon = daemon();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(test(daemon));
}

fn id(text: &str) -> Text<128> {
    Text::cut(text)
}

fn start(name: &str, script: &str, stdin: Stdin) -> Call {
    let options = ExecOptions {
        cwd: Some("/".into()),
        stdin,
        ..ExecOptions::default()
    };
    let (plan, _) = Plan::new(&Command::from(script), &options).unwrap();
    Call::Start {
        id: id(name),
        after: None,
        plan: Box::new(plan),
    }
}

async fn fault(caller: &Caller, call: Call) -> Fault {
    match caller.call(call).await {
        Err(CallError::Fault(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn x2_other_versions_and_roles_are_refused() {
    with_daemon(|daemon| async move {
        let refused = async |change: &dyn Fn(&mut Greeting)| {
            let mut greeting = greeting();
            change(&mut greeting);
            let mut channel = dial(&daemon).await;
            let fault = greet(&mut channel, &greeting).await.unwrap_err();
            assert!(channel.next().await.is_none(), "the connection ends");
            fault.code
        };
        let newer = refused(&|greeting| (greeting.oldest, greeting.newest) = (2, 9)).await;
        assert_eq!(newer, Code::VERSION);
        assert_eq!(refused(&|it| it.role = Role::Daemon).await, Code::ROLE);
        let wrong = refused(&|it| it.token = Token::default()).await;
        assert_eq!(wrong, Code::AUTH);
        let (_first, card) = admitted(&daemon).await;
        assert_eq!(&*card.runtime, daemon.runtime().unwrap().as_str());
        let other = refused(&|greeting| greeting.card.workspace = 8).await;
        assert_eq!(other, Code::WORKSPACE);
        tokio::task::spawn_blocking(move || drop(daemon))
            .await
            .unwrap();
    });
}

#[test]
fn x10_what_makes_no_sense_ends_its_connection_and_nothing_else() {
    with_daemon(|daemon| async move {
        // A stranger, before and instead of a greeting.
        for payload in [vec![], vec![0xff; 100], vec![0; 4_000]] {
            let mut channel = dial(&daemon).await;
            channel.send(0x100, payload.into());
            while let Some(came) = channel.next().await {
                assert!(matches!(came, Ok((0x102, _))), "{came:?}");
            }
        }
        let mut channel = dial(&daemon).await;
        channel.send(0x100, vec![0; 100_000].into());
        assert!(channel.next().await.is_none_or(|came| came.is_err()));
        // A host.
        for (kind, payload) in [(CALL, vec![0xff; 9]), (0x7fff, vec![]), (REPLY, vec![])] {
            let (mut channel, _) = admitted(&daemon).await;
            channel.send(kind, payload.into());
            assert!(channel.next().await.is_none());
        }
        // What is not known and may be passed over is.
        let (channel, card) = admitted(&daemon).await;
        channel.send(0xffff, Bytes::from_static(b"later"));
        let caller = Caller::start(channel, card, SILENCE);
        assert_eq!(caller.call(Call::Ping).await.unwrap(), Reply::Done);
        tokio::task::spawn_blocking(move || drop(daemon))
            .await
            .unwrap();
    });
}

#[test]
fn without_a_mount_only_directories_of_the_machine_will_do() {
    with_daemon(|daemon| async move {
        let (channel, card) = admitted(&daemon).await;
        let caller = Caller::start(channel, card, SILENCE);
        for cwd in [None, Some("src".into())] {
            let options = ExecOptions {
                cwd,
                ..ExecOptions::default()
            };
            let (plan, _) = Plan::new(&Command::from("true"), &options).unwrap();
            let call = Call::Start {
                id: id("one"),
                after: None,
                plan: Box::new(plan),
            };
            let refused = fault(&caller, call).await;
            assert_eq!(refused.code, Code::UNSUPPORTED);
        }
        let there = start("one", "true", Stdin::Empty);
        assert_eq!(caller.call(there).await.unwrap(), Reply::Done);
        tokio::task::spawn_blocking(move || drop(daemon))
            .await
            .unwrap();
    });
}

#[test]
fn x5_calls_have_places_and_those_that_are_taken_back_give_theirs_up() {
    with_daemon(|daemon| async move {
        let (mut channel, _) = admitted(&daemon).await;
        let call = |number: u64, call: Call| encode(&CallFrame { number, call }).unwrap();
        channel.send(CALL, call(0, start("one", "sleep 300", Stdin::Empty)));
        let started = next_reply(&mut channel).await;
        assert_eq!((started.number, started.reply), (0, Ok(Reply::Done)));
        let wait = || Call::Exit { id: id("one") };
        let places = CALLS_MAX as u64;
        for number in 1..=places {
            channel.send(CALL, call(number, wait()));
        }
        channel.send(CALL, call(places + 1, Call::Ping));
        let refused = next_reply(&mut channel).await;
        assert_eq!(refused.number, places + 1);
        assert_eq!(refused.reply.unwrap_err().code, Code::BUSY);
        channel.send(CANCEL, encode(&1_u64).unwrap());
        // The place is free when the call has ended.
        let done = loop {
            channel.send(CALL, call(places + 2, Call::Ping));
            match next_reply(&mut channel).await.reply {
                Ok(reply) => break reply,
                Err(fault) => assert_eq!(fault.code, Code::BUSY),
            }
        };
        assert_eq!(done, Reply::Done);
        tokio::task::spawn_blocking(move || drop(daemon))
            .await
            .unwrap();
    });
}

async fn next_reply(channel: &mut Channel) -> ReplyFrame {
    let (kind, payload) = channel.next().await.unwrap().unwrap();
    assert_eq!(kind, REPLY);
    decode(&payload).unwrap()
}

#[test]
fn x4_an_older_connection_starts_nothing() {
    with_daemon(|daemon| async move {
        let (channel, card) = admitted(&daemon).await;
        let older = Caller::start(channel, card, SILENCE);
        older
            .call(start("one", "true", Stdin::Empty))
            .await
            .unwrap();
        let (channel, card) = admitted(&daemon).await;
        let newer = Caller::start(channel, card, SILENCE);
        newer.call(Call::Find { id: id("one") }).await.unwrap();
        let refused = fault(&older, start("two", "true", Stdin::Empty)).await;
        assert_eq!(refused.code, Code::CLOSED);
        let unknown = fault(&newer, Call::Find { id: id("two") }).await;
        assert_eq!(unknown.code, Code::UNKNOWN);
        // What runs can be read over both.
        let exit = Call::Exit { id: id("one") };
        assert_eq!(
            older.call(exit.clone()).await.unwrap(),
            newer.call(exit).await.unwrap()
        );
        let twice = fault(&newer, start("one", "true", Stdin::Empty)).await;
        assert_eq!(twice.code, Code::DUPLICATE);
        tokio::task::spawn_blocking(move || drop(daemon))
            .await
            .unwrap();
    });
}

#[test]
fn x7_a_piece_of_input_that_comes_twice_is_written_once() {
    with_daemon(|daemon| async move {
        let (channel, card) = admitted(&daemon).await;
        let caller = Caller::start(channel, card, SILENCE);
        let exec = || id("one");
        caller
            .call(start("one", "cat", Stdin::Stream))
            .await
            .unwrap();
        let write = |at, bytes: &'static [u8]| Call::Write {
            id: exec(),
            at,
            bytes: Blob::try_from(Bytes::from_static(bytes)).unwrap(),
        };
        for piece in [
            write(0, b"abc"),
            write(0, b"abc"),
            write(1, b"bcde"),
            write(5, b"f"),
        ] {
            caller.call(piece).await.unwrap();
        }
        let found = caller.call(Call::Find { id: exec() }).await.unwrap();
        assert!(
            matches!(found, Reply::Found { written: 6, .. }),
            "{found:?}"
        );
        caller.call(Call::CloseInput { id: exec() }).await.unwrap();
        caller.call(Call::Exit { id: exec() }).await.unwrap();
        let read = Call::Read {
            id: exec(),
            from: 1,
            bytes_max: u32::MAX,
        };
        let Reply::Events(events) = caller.call(read).await.unwrap() else {
            panic!("no events");
        };
        let mut out = Vec::new();
        for event in events.into_vec() {
            if let crate::exec::EventKind::Stdout(bytes) = event.into_event().kind {
                out.extend_from_slice(&bytes);
            }
        }
        assert_eq!(out, b"abcdef");
        tokio::task::spawn_blocking(move || drop(daemon))
            .await
            .unwrap();
    });
}

#[test]
fn x8_a_command_is_not_started_while_the_host_is_not_there_for_sync() {
    with_daemon(|daemon| async move {
        let (channel, card) = admitted(&daemon).await;
        let caller = Caller::start(channel, card, SILENCE);
        let Call::Start { id, plan, .. } = start("one", "true", Stdin::Empty) else {
            unreachable!();
        };
        let after =
            "00000000000000000000000000000001:5:00000000000000000000000000000000:0000000000000000"
                .parse()
                .unwrap();
        let call = Call::Start {
            id: id.clone(),
            after: Some(after),
            plan,
        };
        let refused = tokio::time::timeout(Duration::from_mins(1), fault(&caller, call)).await;
        assert_eq!(refused.unwrap().code, Code::NOT_IN_STEP);
        let unknown = fault(&caller, Call::Find { id }).await;
        assert_eq!(unknown.code, Code::UNKNOWN);
        // Nor is anything said to be with the host.
        assert_eq!(fault(&caller, Call::Settle).await.code, Code::NOT_IN_STEP);
        tokio::task::spawn_blocking(move || drop(daemon))
            .await
            .unwrap();
    });
}
