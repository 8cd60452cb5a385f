//! The process that runs scripts.
//!
//! It is started by its host with a connection as its standard input, a second
//! one, on which it is told what to cancel, as its standard output, and a pipe
//! as its standard error. It opens nothing itself: before it reads a script, it
//! gives up the right to open any descriptor, and everything that Landlock can
//! take away. What a script does to it, from an overflow of the stack to an
//! endless loop, ends this process at worst.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope,
};
use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::client::Client;
use super::interpreter::{self, Session, Token};
use super::wire::{Done, FromWorker, Run, ToWorker, VERSION};

/// Stack of the interpreter. It is address space, and becomes memory as it is used.
const STACK: usize = 128 << 20;
/// Stack of threads that the interpreter starts, to parse long scripts.
const HELPER_STACK: usize = 64 << 20;
/// Address space for what else the process needs, such as the arenas of its threads.
const OVERHEAD: u64 = 512 << 20;
/// The number in front of what is cancelled.
const NUMBER: usize = 8;

/// What runs, and how it is ended.
type Current = Arc<Mutex<(u64, Option<Token>)>>;

/// Runs scripts until the host ends. `memory_bytes` limits the process.
pub fn serve(memory_bytes: u64) -> std::process::ExitCode {
    // Messages of panics, which the interpreter catches, could fill the pipe.
    std::panic::set_hook(Box::new(|_| {}));
    let served = streams().and_then(|(host, cancel)| {
        // While descriptors can be made.
        let client = Arc::new(Client::new(host)?);
        confine(memory_bytes)?;
        let current = Current::default();
        let watched = Arc::clone(&current);
        std::thread::Builder::new()
            .name("cancel".into())
            .stack_size(256 << 10)
            .spawn(move || watch(cancel, &watched))?;
        std::thread::Builder::new()
            .name("script".into())
            .stack_size(STACK)
            .spawn(move || scripts(&client, &current))
    });
    match served.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => std::process::ExitCode::SUCCESS,
        _ => std::process::ExitCode::FAILURE,
    }
}

fn streams() -> std::io::Result<(UnixStream, UnixStream)> {
    let host: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    let cancel: OwnedFd = std::io::stdout().as_fd().try_clone_to_owned()?;
    Ok((host.into(), cancel.into()))
}

/// Takes from this process what it does not need.
fn confine(memory_bytes: u64) -> std::io::Result<()> {
    // It fails for the first of a process group, which then stays one.
    let _ = rustix::process::setsid();
    let limit = |resource, value: u64| {
        // What is limited further already cannot be raised.
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = Some(value.min(most));
        setrlimit(
            resource,
            Rlimit {
                current: value,
                maximum: value,
            },
        )
    };
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    let space = memory_bytes.saturating_add(STACK as u64 + OVERHEAD);
    limit(Resource::As, space)?;
    restrict();
    // A descriptor that is opened gets a number below this, or none. All of these are in use.
    limit(Resource::Nofile, 3)?;
    Ok(())
}

/// All that Landlock knows, on top of having no descriptors. Without Landlock
/// that alone has to do.
fn restrict() {
    let all = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(ABI::V5)))
        .and_then(|rules| rules.scope(Scope::Signal | Scope::AbstractUnixSocket))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    drop(all);
}

/// Cancels what the host names, and ends the process when the host has ended.
fn watch(mut cancel: UnixStream, current: &Current) {
    let mut number = [0; NUMBER];
    while cancel.read_exact(&mut number).is_ok() {
        let current = current.lock();
        if let (running, Some(token)) = &*current
            && *running == u64::from_le_bytes(number)
        {
            token.store(true, Ordering::Relaxed);
        }
    }
    std::process::exit(1)
}

/// Runs one script after the other.
fn scripts(client: &Arc<Client>, current: &Current) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .thread_stack_size(HELPER_STACK)
        .build()?;
    client.tell(&FromWorker::Hello(VERSION), &[]);
    let (mut session, mut stdin) = (Session::default(), Vec::new());
    loop {
        match client.next() {
            (ToWorker::Input, mut bytes) => stdin.append(&mut bytes),
            (ToWorker::Run(run), script) => {
                let stdin = std::mem::take(&mut stdin);
                let done = one(
                    &runtime,
                    client,
                    &mut session,
                    current,
                    &run,
                    &script,
                    stdin,
                );
                client.done(done);
            }
            (ToWorker::Answer(..), _) => return Err(std::io::ErrorKind::InvalidData.into()),
        }
    }
}

fn one(
    runtime: &tokio::runtime::Runtime,
    client: &Arc<Client>,
    session: &mut Session,
    current: &Current,
    run: &Run,
    script: &[u8],
    stdin: Vec<u8>,
) -> Done {
    let Ok(script) = std::str::from_utf8(script) else {
        let name = &run.name;
        let said = format!("{name}: the script is not UTF-8; write such bytes as $'\\xHH'\n");
        client.output(true, said.as_bytes());
        return Done {
            code: 2,
            limit: None,
            cancelled: false,
            cwd: run.cwd.clone().unwrap_or_default(),
        };
    };
    let began = |token| *current.lock() = (run.number, Some(token));
    let done = interpreter::run(runtime, client, session, run, script, stdin, began);
    current.lock().1 = None;
    done
}
