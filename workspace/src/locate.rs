//! Which replica a command is about, and which path in it.
//!
//! With `--replica`, a place is a path in that replica. Without, it is a path
//! outside: of a replica's directory or file (`demo.cairn`), of something in it
//! (`demo.cairn/src`), or of something below a mount (`demo/src`).

use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use cairn::Replica;

use crate::failure::{Failure, Result};
use crate::mountinfo;

/// The option that names a replica.
#[derive(Debug, clap::Args)]
pub(crate) struct ReplicaArg {
    /// The replica's directory or file; places are then paths in it
    #[arg(short, long, value_name = "DIR", global = false)]
    pub(crate) replica: Option<PathBuf>,
}

/// A place, and the option that names its replica.
#[derive(Debug, clap::Args)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    pub(crate) replica: ReplicaArg,
    /// A replica, a path in one (demo.cairn/src), or a path below a mount;
    /// with --replica a path in it. Default: the working directory, or the root
    #[arg(value_name = "PLACE")]
    pub(crate) place: Option<PathBuf>,
}

impl PlaceArgs {
    /// Finds the place.
    pub(crate) fn locate(&self) -> Result<Place> {
        locate(self.replica.replica.as_deref(), self.place.as_deref())
    }
}

/// A path in a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directory or file of the replica.
    pub(crate) replica: PathBuf,
    /// The path in it, from its root `/` on.
    pub(crate) path: Vec<u8>,
}

/// Finds a place; see the head of this module.
pub(crate) fn locate(replica: Option<&Path>, place: Option<&Path>) -> Result<Place> {
    if let Some(replica) = replica {
        let path = inside(place.unwrap_or(Path::new("/")));
        return Ok(Place {
            replica: canonical(replica),
            path,
        });
    }
    let is_named = place.is_some();
    let place = place.unwrap_or(Path::new("."));
    let absolute = absolute(place)?;
    if let Some(found) = in_directory(&absolute) {
        return Ok(found);
    }
    // Symbolic links lead to mounts too; the last part may be one itself, or not exist.
    let real = match (absolute.parent().map(canonical), absolute.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => absolute.clone(),
    };
    for path in [real, canonical(&absolute)] {
        if let Some(found) = in_mount(&path) {
            return Ok(found);
        }
    }
    Err(Failure::Usage(if is_named {
        format!(
            "{} is neither a replica nor below a mount of one; name a replica (NAME.cairn), or use --replica DIR",
            place.display(),
        )
    } else {
        "name a replica (NAME.cairn), a path in one, or a path below a mount; the working directory is none of these".into()
    }))
}

/// The absolute path of something outside.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Failure::io(format!("cannot find {}", path.display())))
}

/// The path without symbolic links, as far as it exists.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(real), ..) => real,
        (Err(_), Some(parent), Some(name)) => canonical(parent).join(name),
        _ => path,
    }
}

/// The directory of a replica and those above it, as far as they do not exist:
/// what opening the replica would make.
pub(crate) fn missing(replica: &Path) -> Vec<PathBuf> {
    let missing = replica.ancestors().take_while(|dir| !dir.exists());
    missing.map(Path::to_path_buf).collect()
}

/// Removes the directory of a replica that was made for nothing, and those above it.
pub(crate) fn remove_made(made: &[PathBuf]) {
    let Some((replica, above)) = made.split_first() else {
        return;
    };
    // What cannot be removed is in use by somebody else, which is no failure.
    let _ = if replica.is_file() {
        std::fs::remove_file(replica)
    } else {
        std::fs::remove_dir_all(replica)
    };
    for dir in above {
        let _ = std::fs::remove_dir(dir);
    }
}

/// A path in a replica, from its root on.
pub(crate) fn inside(path: &Path) -> Vec<u8> {
    let mut inside = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => {
                inside.push(b'/');
                inside.extend_from_slice(name.as_bytes());
            }
            Component::ParentDir => inside.extend_from_slice(b"/.."),
            _ => {}
        }
    }
    if inside.is_empty() {
        inside.push(b'/');
    }
    inside
}

/// Whether a path in a replica is another, or below it.
pub(crate) fn is_below(path: &[u8], above: &[u8]) -> bool {
    let as_path = |path| Path::new(std::ffi::OsStr::from_bytes(path));
    as_path(path).starts_with(as_path(above))
}

/// A path in a replica, as a path for people.
pub(crate) fn shown(path: &[u8]) -> String {
    PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()))
        .display()
        .to_string()
}

/// A path that goes through the directory of a replica.
pub(crate) fn in_directory(path: &Path) -> Option<Place> {
    // The topmost: what a replica stores may look like one.
    let above: Vec<&Path> = path.ancestors().collect();
    above
        .into_iter()
        .rev()
        .find(|dir| looks_like_replica(dir))
        .map(|dir| Place {
            replica: canonical(dir),
            path: inside(path.strip_prefix(dir).unwrap_or(Path::new(""))),
        })
}

/// Whether a path is that of a replica, which may be about to be made.
fn looks_like_replica(dir: &Path) -> bool {
    if dir.is_file() {
        return Replica::is_single_file(dir) && mountinfo::showing(dir).is_none();
    }
    if dir.extension().is_some_and(|end| end == "cairn") {
        return match dir.symlink_metadata() {
            Ok(_) => mountinfo::showing(dir).is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
    }
    is_replica(dir)
}

/// Whether there is a replica at a path.
pub(crate) fn is_replica(path: &Path) -> bool {
    let is_dir = path.join("cairn.db").is_file() && path.join("chunks").is_dir();
    is_dir || Replica::is_single_file(path)
}

fn in_mount(path: &Path) -> Option<Place> {
    let mounted = mountinfo::showing(path)?;
    let path = inside(path.strip_prefix(&mounted.at).ok()?);
    Some(Place {
        replica: mounted.replica,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_through_a_replica() {
        let place = locate(None, Some(Path::new("/nowhere/demo.cairn/src/a"))).unwrap();
        assert_eq!(
            place,
            Place {
                replica: "/nowhere/demo.cairn".into(),
                path: b"/src/a".to_vec()
            }
        );
    }

    #[test]
    fn a_path_is_relative_to_the_root_of_a_named_replica() {
        for path in ["src/a", "/src/a", "./src//a/"] {
            let place = locate(Some(Path::new("/nowhere/x")), Some(Path::new(path))).unwrap();
            assert_eq!(
                place,
                Place {
                    replica: "/nowhere/x".into(),
                    path: b"/src/a".to_vec()
                }
            );
        }
    }

    #[test]
    fn no_replica_is_a_usage_error() {
        let failure = locate(None, Some(Path::new("/proc"))).unwrap_err();
        assert_eq!(failure.code(), 2);
    }
}
