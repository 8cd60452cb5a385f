//! The shell backend, with real workers.

mod limits;
mod program;
mod session;
mod store;
mod table;

use std::time::Duration;

use cairn::backend::Shell;
use cairn::exec::{Command, Exec, ExecOptions, Output};
use cairn::{Replica, Workspace, block_on};

/// A shell whose workers are processes of the program.
pub(crate) fn shell() -> Shell {
    Shell::new().program(env!("CARGO_BIN_EXE_cairn"))
}

/// A workspace in memory with a shell.
pub(crate) struct Place {
    workspace: Workspace,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(shell())
    }

    pub(crate) fn with(shell: Shell) -> Self {
        let workspace = Workspace::builder().backend("shell", shell).in_memory();
        Self {
            workspace: block_on(workspace).unwrap(),
        }
    }

    pub(crate) fn replica(&self) -> &Replica {
        self.workspace.fs().blocking()
    }

    pub(crate) fn start(&self, script: &str, options: ExecOptions) -> Exec {
        block_on(self.workspace.exec(Command::from(script), options)).unwrap()
    }

    pub(crate) fn run_with(&self, script: &str, options: ExecOptions) -> Output {
        block_on(self.start(script, options).result()).unwrap()
    }

    pub(crate) fn run(&self, script: &str) -> Output {
        self.run_with(script, ExecOptions::default())
    }

    /// Runs what has to succeed, and returns what it prints.
    pub(crate) fn text(&self, script: &str) -> String {
        let output = self.run(script);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.exit.is_success(),
            "{script}: {:?} {errors}",
            output.exit
        );
        assert_eq!(errors, "", "{script}");
        output.text()
    }
}

/// Options with a limit of time.
pub(crate) fn within(time: Duration) -> ExecOptions {
    ExecOptions {
        timeout: Some(time),
        ..ExecOptions::default()
    }
}

/// What an output says on the standard error.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_script_reads_and_writes_the_store() {
    let place = Place::new();
    place.replica().write_file("/in", b"hello\n").unwrap();
    let said = place.text("tr a-z A-Z < in > out && cat out && pwd && echo $CAIRN_WORKSPACE");
    assert_eq!(said, "HELLO\n/workspace\n/workspace\n");
    assert_eq!(place.replica().read_file("/out").unwrap(), b"HELLO\n");
}

#[test]
fn a_program_that_is_no_worker_is_named() {
    let workspace = Workspace::builder().backend("shell", Shell::new().program("/bin/true"));
    let workspace = block_on(workspace.in_memory()).unwrap();
    let error = block_on(workspace.run("true")).unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert!(text.contains("/bin/true is no worker"), "{text}");
}

#[test]
fn a_program_that_was_not_made_fit_says_what_to_do() {
    let workspace = Workspace::builder().backend("shell", Shell::new());
    let workspace = block_on(workspace.in_memory()).unwrap();
    let error = block_on(workspace.run("true")).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        source.contains("cairn::backend::shell::worker()"),
        "{source}"
    );
}
