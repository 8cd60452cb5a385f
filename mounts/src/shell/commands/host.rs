//! Commands that the host performs.

use std::sync::Arc;

use bashkit::{Command, CommandContext, CommandStatus, async_trait};

use super::call::plain;
use super::place::Place;
use crate::shell::wire::{Answer, Ask, BYTES_MAX, Call};

/// A command of the host, under whatever name it is called.
pub(crate) struct OnHost(pub(crate) Arc<Place>);

#[async_trait]
impl Command for OnHost {
    async fn execute(&self, context: CommandContext<'_>) -> bashkit::Result<CommandStatus> {
        let mut stdin = Vec::new();
        while let Some(mut piece) = context.stdin.read_chunk().await? {
            stdin.append(&mut piece);
            if stdin.len() > BYTES_MAX {
                let line = format!("{}: its input is larger than 16 MiB\n", context.name);
                context.stderr.write_all(line.as_bytes()).await?;
                return Ok(CommandStatus::with_code(1));
            }
        }
        let env = context.env.iter();
        let call = Call {
            name: context.name.into(),
            arguments: context.args.to_vec(),
            env: env
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            cwd: context.cwd.to_string_lossy().into_owned(),
        };
        match self.0.client.ask(Ask::Command(call), &stdin) {
            Ok((Answer::Performed(code, out), bytes)) => {
                let out = usize::try_from(out).unwrap_or(usize::MAX).min(bytes.len());
                context.stdout.write_all(&bytes[..out]).await?;
                context.stderr.write_all(&bytes[out..]).await?;
                Ok(CommandStatus::with_code(code))
            }
            Ok(_) => Ok(CommandStatus::with_code(1)),
            Err(error) => {
                let error = plain(error.into());
                let line = format!("{}: {error}\n", context.name);
                context.stderr.write_all(line.as_bytes()).await?;
                Ok(CommandStatus::with_code(126))
            }
        }
    }
}
