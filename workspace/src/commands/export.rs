//! stub
use serde::{Deserialize, Serialize};
use crate::{console::Console,failure::*,host::Host};
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {}
pub(crate) fn run(_: &Args) -> Result { Ok(Outcome::Done) }
pub(crate) fn perform(_: &Request, _: &Host, _: &mut dyn Console) -> Result { Ok(Outcome::Done) }
