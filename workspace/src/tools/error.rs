//! Why a tool failed, in words for a model.

use std::io;

use cairn_engine::FsError;

use crate::workspace::WorkspaceError;

/// Why a tool failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// No tool has this name.
    #[error("there is no tool {name:?}; there are {known}")]
    UnknownTool {
        /// The name that was called.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The input does not fit the tool.
    #[error("bad input: {0}")]
    Input(String),
    /// A file that cannot be shown or changed as text.
    #[error("{path} {why}")]
    NotText {
        /// The file.
        path: String,
        /// What it is, and what to do.
        why: String,
    },
    /// Larger than a tool handles.
    #[error("{what} has {bytes} bytes; at most {most} are possible")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        bytes: u64,
        /// The most.
        most: u64,
    },
    /// What is to be replaced is not there.
    #[error(
        "edit {number}: its oldText is not in {path}; read the file again and copy the text exactly"
    )]
    NotFound {
        /// Which edit, from 1.
        number: usize,
        /// The file.
        path: String,
    },
    /// What is to be replaced is there more than once.
    #[error(
        "edit {number}: its oldText is more than once in {path}, at lines {first} and {second}; add lines around it until it is unique"
    )]
    Ambiguous {
        /// Which edit, from 1.
        number: usize,
        /// The file.
        path: String,
        /// The line of one place.
        first: usize,
        /// The line of another.
        second: usize,
    },
    /// Two edits are about the same text.
    #[error("edits {first} and {second} overlap in {path}; make one of them")]
    Overlap {
        /// Which edit, from 1.
        first: usize,
        /// The other.
        second: usize,
        /// The file.
        path: String,
    },
    /// A folded match begins or ends inside of a character.
    #[error(
        "edit {number}: its oldText is in {path} only as a part of a character that looks alike; copy the text exactly"
    )]
    Inside {
        /// Which edit, from 1.
        number: usize,
        /// The file.
        path: String,
    },
    /// Nothing would change.
    #[error("the edits leave {0} as it is")]
    NoChange(String),
    /// Somebody else changed the file meanwhile. Nothing was written.
    #[error("{0} was changed by somebody else meanwhile; read it again, then repeat the edit")]
    Changed(String),
    /// The filesystem refused.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The command could not be run.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// Reading failed, or a thread could not be started.
    #[error("the tool cannot work: {0}")]
    Io(#[from] io::Error),
}

impl ToolError {
    /// The message with its causes, in one line.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text
    }
}
