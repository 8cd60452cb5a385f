//! Tools of our own, in place of the interpreter's.
//!
//! They are byte-clean, read files in pieces, and behave as GNU's do. What they
//! read and write in the workspace goes straight to the store; what is
//! elsewhere, such as `/tmp` and `/dev`, goes through the interpreter's tree.

mod call;
mod cat;
mod chmod;
mod cut;
mod dates;
mod dd;
mod df;
mod diff;
mod edits;
mod grep;
mod head;
mod host;
mod join;
mod keys;
mod ln;
mod long;
mod ls;
mod mkdir;
mod modes;
mod options;
mod place;
mod posix;
mod sed;
mod sort;
mod source;
mod stat;
mod tail;
mod tee;
mod trees;
mod umask;
mod uniq;
mod wc;

use std::sync::Arc;

use bashkit::{BashBuilder, Command, CommandContext, CommandStatus, async_trait};

use call::Call;

pub(crate) use call::reason;
pub(crate) use place::Place;

/// A tool of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Cat,
    Chmod,
    Cut,
    Dd,
    Df,
    Diff,
    Grep,
    Head,
    Join,
    Ln,
    Ls,
    Mkdir,
    Sed,
    Sort,
    Stat,
    Tail,
    Tee,
    Umask,
    Uniq,
    Wc,
}

const TOOLS: [(&str, Tool); 22] = [
    ("cat", Tool::Cat),
    ("chmod", Tool::Chmod),
    ("cut", Tool::Cut),
    ("dd", Tool::Dd),
    ("df", Tool::Df),
    ("diff", Tool::Diff),
    ("egrep", Tool::Grep),
    ("fgrep", Tool::Grep),
    ("grep", Tool::Grep),
    ("head", Tool::Head),
    ("join", Tool::Join),
    ("ln", Tool::Ln),
    ("ls", Tool::Ls),
    ("mkdir", Tool::Mkdir),
    ("sed", Tool::Sed),
    ("sort", Tool::Sort),
    ("stat", Tool::Stat),
    ("tail", Tool::Tail),
    ("tee", Tool::Tee),
    ("umask", Tool::Umask),
    ("uniq", Tool::Uniq),
    ("wc", Tool::Wc),
];

/// Registers the tools, and commands that the host performs.
pub(crate) fn register(
    mut builder: BashBuilder,
    place: &Arc<Place>,
    host: &[String],
) -> BashBuilder {
    for (name, tool) in TOOLS {
        builder = builder.command(name, Registered(tool, Arc::clone(place)));
    }
    for name in host {
        builder = builder.command(name, host::OnHost(Arc::clone(place)));
    }
    builder
}

struct Registered(Tool, Arc<Place>);

#[async_trait]
impl Command for Registered {
    async fn execute(&self, context: CommandContext<'_>) -> bashkit::Result<CommandStatus> {
        let call = Call::new(&context, &self.1);
        let done = match self.0 {
            Tool::Cat => cat::run(&call).await,
            Tool::Chmod => chmod::run(&call).await,
            Tool::Cut => cut::run(&call).await,
            Tool::Dd => dd::run(&call).await,
            Tool::Df => df::run(&call).await,
            Tool::Diff => diff::run(&call).await,
            Tool::Grep => grep::run(&call).await,
            Tool::Head => head::run(&call).await,
            Tool::Join => join::run(&call).await,
            Tool::Ln => ln::run(&call).await,
            Tool::Ls => ls::run(&call).await,
            Tool::Mkdir => mkdir::run(&call).await,
            Tool::Sed => sed::run(&call).await,
            Tool::Sort => sort::run(&call).await,
            Tool::Stat => stat::run(&call).await,
            Tool::Tail => tail::run(&call).await,
            Tool::Tee => tee::run(&call).await,
            Tool::Umask => umask::run(&call).await,
            Tool::Uniq => uniq::run(&call).await,
            Tool::Wc => wc::run(&call).await,
        };
        let code = match done {
            Ok(code) | Err(call::Failure::Usage(code)) => code,
            Err(call::Failure::Shell(error)) => return Err(error),
        };
        call.flush().await?;
        let code = call.written(code).await?;
        Ok(CommandStatus::with_code(code))
    }
}
