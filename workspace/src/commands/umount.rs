//! `cairn umount`: unmounts, and returns when the process that served the
//! mount has committed everything and let go of the replica.

use std::path::PathBuf;

use cairn::fuse::unmount;

use crate::control::watch;
use crate::failure::{Outcome, Result};
use crate::{locate, mountinfo};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where it is mounted
    mountpoint: PathBuf,
    /// Take it away at once, even from under processes that use it
    #[arg(short, long)]
    lazy: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let at = locate::absolute(&args.mountpoint)?;
    let mut places = vec![at.clone()];
    if let (Some(parent), Some(name)) = (at.parent(), at.file_name()) {
        // Without touching the mount itself, which may be dead.
        places.push(locate::canonical(parent).join(name));
    }
    let mounted = mountinfo::all()
        .into_iter()
        .rev()
        .find(|mounted| places.contains(&mounted.at));
    let owner = mounted.and_then(|mounted| watch(&mounted.replica));
    unmount(&at, args.lazy)?;
    if let Some(owner) = owner.filter(|_| !args.lazy) {
        owner.wait();
    }
    Ok(Outcome::Done)
}
