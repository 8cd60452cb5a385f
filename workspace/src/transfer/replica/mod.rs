//! Trees in a replica, by inode number: no name is looked up twice, and no
//! symbolic link is in the way.

mod read;
mod write;

pub(crate) use read::{measure, read};
pub(crate) use write::{How, Writer};
