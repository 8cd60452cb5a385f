//! Commands that scripts can call and the host performs.

use std::collections::HashMap;
use std::sync::Arc;

use cairn_engine::Replica;

/// A command that scripts can call and the host performs.
pub trait HostCommand: std::fmt::Debug + Send + Sync {
    /// Performs it. It takes the thread of the run, so limits of time hold
    /// only when it returns.
    fn perform(&self, call: &HostCall<'_>) -> HostResult;
}

/// A call of a [`HostCommand`].
#[derive(Debug)]
pub struct HostCall<'a> {
    /// The name it was called by.
    pub name: &'a str,
    /// Its arguments.
    pub arguments: &'a [String],
    /// Exported variables.
    pub env: &'a [(String, String)],
    /// The working directory, in the shell's names.
    pub cwd: &'a str,
    /// Its whole standard input: at most 16 MiB.
    pub stdin: &'a [u8],
    /// The workspace.
    pub replica: &'a Replica,
}

/// What a [`HostCommand`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostResult {
    /// For the standard output; with `stderr` at most 16 MiB.
    pub stdout: Vec<u8>,
    /// For the standard error.
    pub stderr: Vec<u8>,
    /// The exit status: 0 to 255.
    pub code: i32,
}

/// Commands by name.
pub type HostCommands = HashMap<String, Arc<dyn HostCommand>>;
