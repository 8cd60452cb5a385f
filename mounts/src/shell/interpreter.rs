//! The interpreter of one worker: how it is set up for a run, and what becomes
//! of its result.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bashkit::{
    Bash, Error, ExecOptions, ExecResult, ExecutionBudgetExceeded, ExecutionLimits, FsLimits,
    InMemoryFs, LimitExceeded, MemoryLimits, SessionLimits,
};

use super::adapter::StoreFs;
use super::client::{Client, UMASK};
use super::commands::{self, Place};
use super::wire::{Done, Run};
use super::{Limit, Limits};

/// The user that scripts see.
const USER: &str = "user";
/// The name of the machine that scripts see.
const HOSTNAME: &str = "cairn";
/// Longer than any script runs: the host ends those whose time is over. It is
/// longer than the interpreter can count, so it does not look at the clock at
/// each step, which took a seventh of the time of what computes much.
const NEVER: Duration = Duration::MAX;
/// Longest script, in bytes.
pub(crate) const SCRIPT_MAX: usize = 10_000_000;

/// The interpreter that is kept between the runs of a session.
#[derive(Default)]
pub(crate) struct Session {
    bash: Option<Bash>,
    code: i32,
}

/// A flag that ends a script when it is set.
pub(crate) type Token = Arc<AtomicBool>;

/// Runs a script to its end.
pub(crate) fn run(
    runtime: &tokio::runtime::Runtime,
    client: &Arc<Client>,
    session: &mut Session,
    run: &Run,
    script: &str,
    stdin: Vec<u8>,
    began: impl FnOnce(Token),
) -> Done {
    client.begin();
    client.set_whole_file_bytes(run.limits.whole_file_bytes);
    let kept = run.session.then(|| session.bash.take()).flatten();
    let mut bash = match kept {
        Some(mut bash) => {
            resume(&mut bash, run);
            bash
        }
        None => begin(client, run),
    };
    let token = bash.cancellation_token();
    token.store(false, Ordering::Relaxed);
    began(Arc::clone(&token));
    let mut options = ExecOptions::new().arg0(&*run.name);
    if !run.arguments.is_empty() {
        options = options.positional(run.arguments.iter().cloned());
    }
    if !stdin.is_empty() {
        options = options.stdin(stdin);
    }
    let source = with_status(session.code, script);
    let output = Output::new(client, run.limits.output_bytes);
    let result = runtime.block_on(async {
        let execution = bash.execute(&source).options(options);
        execution
            .stdout_fn(|bytes| std::future::ready(output.take(false, &bytes)))
            .stderr_fn(|bytes| std::future::ready(output.take(true, &bytes)))
            .await
    });
    let mut done = outcome(result, &output, run, script);
    done.cancelled |= token.load(Ordering::Relaxed) && done.limit.is_none();
    done.cwd = bash.shell_state_view().cwd.to_string_lossy().into_owned();
    if run.session {
        session.code = done.code;
        session.bash = Some(bash);
    }
    done
}

/// The interpreter forgets the status of the last script; one that was not 0 is
/// set again by the first command.
fn with_status(code: i32, script: &str) -> std::borrow::Cow<'_, str> {
    match code {
        0 => script.into(),
        code => format!("(exit {}); {script}", code & 0xff).into(),
    }
}

/// A new interpreter.
fn begin(client: &Arc<Client>, run: &Run) -> Bash {
    client.set_umask(UMASK);
    let scratch = InMemoryFs::with_limits(
        FsLimits::unlimited()
            .max_total_bytes(run.limits.scratch_bytes)
            .max_file_size(run.limits.scratch_bytes),
    );
    let home = format!("/home/{USER}");
    scratch.add_dir(&home, 0o755);
    scratch.add_dir(&run.root, 0o755);
    let mut builder = Bash::builder()
        .fs(Arc::new(scratch))
        .username(USER)
        .hostname(HOSTNAME)
        .env("HOME", home)
        .env("CAIRN_WORKSPACE", &run.root)
        .limits(limits(&run.limits))
        .session_limits(SessionLimits::unlimited())
        .memory_limits(MemoryLimits::unlimited())
        .cwd(PathBuf::from(run.cwd.as_ref().unwrap_or(&run.root)));
    for (name, value) in &run.env {
        builder = builder.env(name, value);
    }
    let place = Place::new(client, &run.root);
    let bash = commands::register(builder, &place, &run.commands).build();
    // It fails only for a path that is not absolute, and the host has looked.
    let _ = bash.mount(&run.root, Arc::new(StoreFs(Arc::clone(client))));
    bash
}

/// Goes on with an interpreter of an earlier run.
fn resume(bash: &mut Bash, run: &Run) {
    if let Some(cwd) = &run.cwd {
        let mut state = bash.shell_state();
        state.cwd = PathBuf::from(cwd);
        bash.restore_shell_state(&state);
    }
    for (name, value) in &run.env {
        bash.set_env(name, value);
    }
}

/// The interpreter's own limits. Those on memory are wide, as the process has a
/// limit of the real thing; that on the work of the parser is narrow, as it
/// spins on some errors until it is used up.
fn limits(limits: &Limits) -> ExecutionLimits {
    let count = usize::try_from(limits.commands).unwrap_or(usize::MAX);
    let bytes = usize::try_from(limits.output_bytes).unwrap_or(usize::MAX);
    ExecutionLimits::new()
        .max_work_units(u64::MAX)
        .max_aggregate_input_bytes(u64::MAX)
        .max_live_intermediate_bytes(limits.memory_bytes)
        .max_commands(count)
        .max_loop_iterations(count)
        .max_total_loop_iterations(count)
        .max_function_depth(limits.function_depth as usize)
        .timeout(NEVER)
        .max_input_bytes(SCRIPT_MAX + 64)
        // One more than may be written, so that the output's end is noticed.
        .max_stdout_bytes(bytes.saturating_add(1))
        .max_stderr_bytes(bytes.saturating_add(1))
        .max_word_split_fields(10_000_000)
        .max_word_split_bytes(usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX))
}

/// Where output goes, as far as it may.
struct Output<'a> {
    client: &'a Client,
    left: [AtomicU64; 2],
    exceeded: AtomicBool,
}

impl<'a> Output<'a> {
    fn new(client: &'a Client, most: u64) -> Self {
        Self {
            client,
            left: [AtomicU64::new(most), AtomicU64::new(most)],
            exceeded: AtomicBool::new(false),
        }
    }

    fn take(&self, is_error: bool, bytes: &[u8]) -> bashkit::Result<()> {
        let left = self.left[usize::from(is_error)].load(Ordering::Relaxed);
        let fits = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.client.output(is_error, &bytes[..fits]);
        let taken = fits as u64;
        self.left[usize::from(is_error)].fetch_sub(taken, Ordering::Relaxed);
        if fits == bytes.len() {
            return Ok(());
        }
        self.exceeded.store(true, Ordering::Relaxed);
        Err(Error::Cancelled)
    }
}

/// How a run ended, after it was said what went wrong.
fn outcome(
    result: bashkit::Result<ExecResult>,
    output: &Output<'_>,
    run: &Run,
    script: &str,
) -> Done {
    let mut done = Done {
        code: 0,
        limit: None,
        cancelled: false,
        cwd: String::new(),
    };
    if output.exceeded.load(Ordering::Relaxed) {
        done.limit = Some(Limit::Output);
        done.code = Limit::Output.code();
        return done;
    }
    let error = match result {
        Ok(result) => {
            done.code = result.exit_code & 0xff;
            return done;
        }
        Err(error) => error,
    };
    let name = &run.name;
    done.limit = match &error {
        Error::ResourceLimit(limit) => Some(which(limit)),
        _ => None,
    };
    let (code, said) = match error {
        Error::Cancelled => {
            done.cancelled = true;
            (130, None)
        }
        Error::ResourceLimit(limit) => {
            let code = which(&limit).code();
            (code, Some(format!("{name}: {limit}\n")))
        }
        Error::Parse { .. } => (2, error.syntax_report(name, script)),
        Error::Io(error) => (1, Some(format!("{name}: {}\n", commands::reason(&error)))),
        error => (1, Some(format!("{name}: {error}\n"))),
    };
    done.code = code;
    if let Some(said) = said {
        // The limit of output does not matter for the last word.
        let _ = output.take(true, said.as_bytes());
    }
    done
}

fn which(limit: &LimitExceeded) -> Limit {
    match limit {
        LimitExceeded::MaxCommands(_)
        | LimitExceeded::MaxLoopIterations(_)
        | LimitExceeded::MaxTotalLoopIterations(_)
        | LimitExceeded::SessionMaxCommands(_)
        | LimitExceeded::SessionMaxExecCalls(_)
        | LimitExceeded::MaxConcurrentJobs(_)
        | LimitExceeded::ExecutionBudget(ExecutionBudgetExceeded::WorkUnits { .. }) => {
            Limit::Commands
        }
        LimitExceeded::MaxFunctionDepth(_)
        | LimitExceeded::MaxSubstDepth(_)
        | LimitExceeded::MaxSubshellDepth(_)
        | LimitExceeded::MaxPromptDepth(_)
        | LimitExceeded::MaxTrapDepth(_) => Limit::Recursion,
        LimitExceeded::Timeout(_)
        | LimitExceeded::ExecutionBudget(ExecutionBudgetExceeded::Deadline { .. }) => Limit::Time,
        LimitExceeded::InputTooLarge(..)
        | LimitExceeded::AstTooDeep(..)
        | LimitExceeded::ParserExhausted(..)
        | LimitExceeded::ParserTimeout(_) => Limit::Script,
        _ => Limit::Memory,
    }
}
