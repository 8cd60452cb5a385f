//! Where warnings go: the standard error, which for a daemon is its log file.
//!
//! `CAIRN_LOG` chooses what is told, as `debug` or `cairn_engine=trace`.

use std::fs::File;
use std::path::{Path, PathBuf};

use tracing_subscriber::EnvFilter;

/// Name of the log file in the replica's directory; a replica of one file has it
/// beside it, behind its own name.
const NAME: &str = "cairn.log";
/// A longer log is set aside when a daemon starts.
const BYTES_MAX: u64 = 4 << 20;

/// Tells warnings, and in a daemon also what is worth to know.
pub(crate) fn start(daemon: bool) {
    let default = if daemon { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("CAIRN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if daemon {
        let _ = format.try_init();
    } else {
        let _ = format
            .without_time()
            .with_target(false)
            .compact()
            .try_init();
    }
}

/// Opens the log file of a replica.
pub(crate) fn file(replica: &Path) -> std::io::Result<File> {
    let path = if replica.is_file() {
        let mut name = replica.as_os_str().to_owned();
        name.push(".log");
        PathBuf::from(name)
    } else {
        replica.join(NAME)
    };
    if path
        .metadata()
        .is_ok_and(|metadata| metadata.len() > BYTES_MAX)
    {
        std::fs::rename(&path, path.with_extension("log.old"))?;
    }
    File::options().create(true).append(true).open(path)
}
