//! Tools for agents: read, write, edit, ls, find, grep, delete and exec, with
//! limits that keep an answer small enough for a model.
//!
//! [`Tools::call`] takes a name and a JSON object, as a model gives them, and
//! answers with text for the model and the same as JSON. What goes wrong is an
//! error that says what to do about it; it never ends the agent.
//!
//! | module | owns |
//! | --- | --- |
//! | `spec` | names, descriptions, schemas |
//! | `read`, `write`, `list`, `search`, `run` | the tools |
//! | `edit`, `fold`, `patch` | finding what is to be replaced, and showing what was |
//! | `locks` | no two tools change one file at a time |
//!
//! # Examples
//!
//! ```
//! use cairn::{Workspace, tools::Tools};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # cairn::block_on(async {
//! let tools = Tools::new(Workspace::in_memory().await?);
//! tools.call("write", json!({"path": "/a.txt", "content": "one\ntwo\n"})).await?;
//! let edits = json!([{"oldText": "two", "newText": "three"}]);
//! let edited = tools.call("edit", json!({"path": "/a.txt", "edits": edits})).await?;
//! assert!(edited.text.contains("-two\n+three\n"));
//! # Ok(()) })
//! # }
//! ```

mod edit;
mod error;
mod fold;
mod list;
mod locks;
mod patch;
mod read;
mod run;
mod search;
mod spec;
mod write;

use std::sync::Arc;

use cairn_engine::Replica;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use error::ToolError;
pub use spec::Spec;

use crate::waiting::elsewhere;
use crate::workspace::Workspace;

/// What a tool answers.
pub type Result<T, E = ToolError> = std::result::Result<T, E>;

/// Content that is given to a model as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Its type, as in `image/png`.
    pub mime: &'static str,
    /// Its bytes.
    pub data: Vec<u8>,
}

/// The answer of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// For the model.
    pub text: String,
    /// The same for a program.
    pub value: Value,
    /// An image or document that was read.
    pub media: Option<Media>,
}

impl Answer {
    fn new(text: String, value: Value) -> Self {
        Self {
            text,
            value,
            media: None,
        }
    }
}

/// The tools of a workspace. Cheap to clone; all clones share their locks.
#[derive(Clone, Debug)]
pub struct Tools {
    workspace: Workspace,
    read_only: bool,
    locks: Arc<locks::Locks>,
}

impl Tools {
    /// All tools; `exec` is one if the workspace has a backend.
    pub fn new(workspace: Workspace) -> Self {
        Self {
            workspace,
            read_only: false,
            locks: Arc::default(),
        }
    }

    /// Only the tools that change nothing: read, ls, find and grep.
    pub fn read_only(workspace: Workspace) -> Self {
        Self {
            read_only: true,
            ..Self::new(workspace)
        }
    }

    /// The workspace they work on.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// The tools there are, for a model.
    pub fn list(&self) -> Vec<Spec> {
        spec::all()
            .into_iter()
            .filter(|spec| self.has(spec))
            .collect()
    }

    fn has(&self, spec: &Spec) -> bool {
        let runs = spec.name == "exec";
        (spec.read_only || !self.read_only) && (!runs || self.workspace.backends().next().is_some())
    }

    /// Calls a tool.
    ///
    /// # Errors
    ///
    /// [`ToolError`], with a text that is meant for the model.
    ///
    /// # Cancel safety
    ///
    /// A command is ended. What changes a file is done, or will be.
    pub async fn call(&self, name: &str, input: Value) -> Result<Answer> {
        let known = self.list();
        let Some(spec) = known.iter().find(|spec| spec.name == name) else {
            let known: Vec<&str> = known.iter().map(|spec| spec.name).collect();
            return Err(ToolError::UnknownTool {
                name: name.into(),
                known: known.join(", "),
            });
        };
        match spec.name {
            "read" => self.on_files(parse(input)?, read::read).await,
            "ls" => self.on_files(parse(input)?, list::ls).await,
            "find" => self.on_files(parse(input)?, list::find).await,
            "grep" => self.on_files(parse(input)?, search::grep).await,
            "write" => self.on_files(parse(input)?, write::write).await,
            "edit" => self.on_files(parse(input)?, edit::edit).await,
            "delete" => self.on_files(parse(input)?, write::delete).await,
            _ => run::exec(&self.workspace, parse(input)?).await,
        }
    }

    /// Runs what blocks.
    async fn on_files<I: Send + 'static>(
        &self,
        input: I,
        tool: fn(&Files, &I) -> Result<Answer>,
    ) -> Result<Answer> {
        let files = Files {
            replica: self.workspace.fs().blocking().clone(),
            locks: Arc::clone(&self.locks),
        };
        elsewhere(move || tool(&files, &input)).await?
    }
}

/// What the tools for files work with.
#[derive(Debug)]
struct Files {
    replica: Replica,
    locks: Arc<locks::Locks>,
}

fn parse<T: DeserializeOwned>(input: Value) -> Result<T> {
    serde_json::from_value(input).map_err(|error| ToolError::Input(error.to_string()))
}

/// The absolute path of what a model named: without `.`, `..` and double `/`.
fn path(given: &str) -> Result<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in given.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                let above =
                    ToolError::Input(format!("the path {given:?} leads out of the workspace"));
                parts.pop().ok_or(above)?;
            }
            name => parts.push(name),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// A part of a list: what is shown, and where the next part begins.
fn page(offset: Option<usize>, limit: Option<usize>) -> (usize, usize) {
    const DEFAULT: usize = 200;
    const MOST: usize = 1_000;
    (offset.unwrap_or(0), limit.unwrap_or(DEFAULT).clamp(1, MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_workspace() {
        for (given, is) in [
            ("", "/"),
            ("a/./b//", "/a/b"),
            ("/a/../b", "/b"),
            ("./x", "/x"),
        ] {
            assert_eq!(path(given).unwrap(), is);
        }
        assert!(path("/a/../../b").is_err());
    }
}
