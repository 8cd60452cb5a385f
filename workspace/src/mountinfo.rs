//! Which replicas are mounted where, as the kernel's table of mounts tells it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type under which mounts of this program appear in the table.
const KIND: &str = "fuse.cairn";

/// A mounted replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// The directory of the replica.
    pub(crate) replica: PathBuf,
    /// Where it is mounted.
    pub(crate) at: PathBuf,
}

/// All mounted replicas, the newest last. None where there is no table.
pub(crate) fn all() -> Vec<Mounted> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    table
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect()
}

/// Where a replica is mounted.
pub(crate) fn mounts_of(replica: &Path) -> Vec<PathBuf> {
    all()
        .into_iter()
        .filter(|mounted| mounted.replica == replica)
        .map(|mounted| mounted.at)
        .collect()
}

/// The mounted replica that shows a path, which has to be absolute.
pub(crate) fn showing(path: &Path) -> Option<Mounted> {
    let above = all()
        .into_iter()
        .filter(|mounted| path.starts_with(&mounted.at));
    // Of two mounts at one place, the newer hides the older.
    above.max_by_key(|mounted| mounted.at.components().count())
}

/// One line: `id parent major:minor root mountpoint options [fields] - type source options`.
fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let at = fields.nth(4)?;
    fields.find(|field| *field == b"-")?;
    if fields.next()? != KIND.as_bytes() {
        return None;
    }
    let replica = path(fields.next()?);
    replica.is_absolute().then(|| Mounted {
        replica,
        at: path(at),
    })
}

/// Turns `\040` and its like back into bytes.
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        rest = after;
        let digits = after
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(u8::is_ascii_digit));
        match digits
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => bytes.push(*first),
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_in_the_table() {
        let line = b"36 35 0:98 / /mnt/a\\040b rw,nosuid shared:1 - fuse.cairn /data/a\\040b.cairn rw,user_id=0";
        let found = Mounted {
            replica: "/data/a b.cairn".into(),
            at: "/mnt/a b".into(),
        };
        assert_eq!(parse(line), Some(found));
    }

    #[test]
    fn other_lines_are_passed_over() {
        for line in [
            &b""[..],
            b"1 2",
            b"36 35 0:98 / /mnt rw - ext4 /dev/sda rw",
            b"36 35 0:98 / /mnt rw - fuse.cairn cairn rw",
        ] {
            assert_eq!(parse(line), None);
        }
    }
}
