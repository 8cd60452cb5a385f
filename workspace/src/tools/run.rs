//! `exec`: a command, its output and its end.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::{Answer, Result};
use crate::exec::{Ended, Exec, ExecOptions, Output, Signal};
use crate::waiting::block_on;
use crate::workspace::{Workspace, WorkspaceError};

/// Most bytes that are shown of the beginning of an output, and of its end.
const SHOWN: (usize, usize) = (16 << 10, 48 << 10);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Input {
    command: String,
    cwd: Option<String>,
    backend: Option<String>,
    timeout_ms: Option<u64>,
}

pub(super) async fn exec(workspace: &Workspace, input: Input) -> Result<Answer> {
    let mut options = ExecOptions {
        backend: input.backend,
        cwd: input.cwd.map(Into::into),
        ..ExecOptions::default()
    };
    if let Some(timeout) = input.timeout_ms {
        options.timeout = Some(Duration::from_millis(timeout));
    }
    let running = Running(Some(workspace.exec(input.command, options).await?));
    let output = running.result().await?;
    Ok(answer(&output))
}

/// A command that is ended when nobody waits for it any more.
struct Running(Option<Exec>);

impl Running {
    async fn result(mut self) -> Result<Output> {
        let Some(exec) = &self.0 else {
            return Err(WorkspaceError::Closed.into());
        };
        let output = exec.result().await.map_err(WorkspaceError::from)?;
        self.0 = None;
        Ok(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(exec) = self.0.take() {
            // A backend far away may take its time.
            let ending = std::thread::Builder::new().name("cairn-kill".into());
            let _ = ending.spawn(move || block_on(exec.kill(Signal::KILL)));
        }
    }
}

fn answer(output: &Output) -> Answer {
    let (stdout, stderr) = (shown(&output.stdout), shown(&output.stderr));
    let mut text = stdout.clone();
    if !stderr.is_empty() {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str("[standard error]\n");
        text.push_str(&stderr);
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let code = output.exit.code;
    let end = match output.exit.ended {
        Ended::Exited => format!("[exit code {code}]"),
        Ended::Signalled(signal) => format!("[ended by signal {signal}]"),
        Ended::TimedOut => "[ended: it took too long]".into(),
        Ended::Killed => "[it was killed]".into(),
        Ended::Lost => "[lost: whether it did its work is not known]".into(),
    };
    text.push_str(&end);
    let value = json!({
        "exitCode": code,
        "stdout": stdout,
        "stderr": stderr,
        "timedOut": output.exit.ended == Ended::TimedOut,
    });
    Answer::new(text, value)
}

/// The beginning and the end of an output, as text.
fn shown(bytes: &[u8]) -> String {
    let (head, tail) = SHOWN;
    if bytes.len() <= head + tail {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let left_out = bytes.len() - head - tail;
    format!(
        "{}\n[{left_out} bytes left out]\n{}",
        String::from_utf8_lossy(&bytes[..head]),
        String::from_utf8_lossy(&bytes[bytes.len() - tail..])
    )
}
