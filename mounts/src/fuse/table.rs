//! The kernel's table of mounts, read without touching any mount: a look at one whose server is
//! gone may never return.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of `/proc/self/mountinfo`, as far as it is needed here (`proc_pid_mountinfo(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// Device number, `major:minor`.
    pub(crate) device: String,
    /// Mount point.
    pub(crate) at: PathBuf,
    /// Type, with the subtype after a point.
    pub(crate) kind: String,
    /// Source.
    pub(crate) source: String,
}

impl Mounted {
    /// For messages.
    pub(crate) fn describe(&self) -> String {
        format!("a {} filesystem ({})", self.kind, self.source)
    }

    /// Whether a FUSE server stands behind it.
    pub(crate) fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.")
    }
}

/// The topmost mount at exactly this path, which must be free of symbolic links.
pub(crate) fn mounted_at(path: &Path) -> std::io::Result<Option<Mounted>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .rfind(|mounted| mounted.at == path))
}

fn parse(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = text(fields.nth(2)?);
    let at = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    fields.find(|field| *field == b"-")?;
    Some(Mounted {
        device,
        at,
        kind: text(fields.next()?),
        source: text(fields.next()?),
    })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// Undoes `\ooo`, three octal digits for a byte that would break the line.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = || {
            let digits = std::str::from_utf8(after.get(..3)?).ok()?;
            u8::from_str_radix(digits, 8).ok()
        };
        if byte == b'\\'
            && let Some(escaped) = octal()
        {
            bytes.push(escaped);
            rest = &after[3..];
        } else {
            bytes.push(byte);
            rest = after;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table_are_read() {
        let line = br"51 29 0:45 / /mnt/my\040work rw,nosuid,nodev - fuse.cairn cairn rw,user_id=0";
        assert_eq!(
            parse(line),
            Some(Mounted {
                device: "0:45".into(),
                at: "/mnt/my work".into(),
                kind: "fuse.cairn".into(),
                source: "cairn".into(),
            })
        );
        let shared = b"24 1 253:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw";
        assert_eq!(
            parse(shared).map(|mounted| mounted.kind),
            Some("ext4".into())
        );
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(mounted_at(Path::new("/")).unwrap().is_some());
        assert!(mounted_at(Path::new("/no/such/place")).unwrap().is_none());
    }
}
