//! Names in archives: which of them are refused, and what the others mean.

use crate::transfer::TransferError;
use crate::transfer::error::Shown;

/// Names in a path, as a replica has them.
const DEPTH_MAX: usize = 4_096;
/// Bytes of a name.
const NAME_MAX: usize = 255;

/// The path below the top that a name in an archive means.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, TransferError> {
    let shown = || Shown::new(name);
    if name.starts_with(b"/") {
        return Err(TransferError::Absolute(shown()));
    }
    if name.is_empty() || name.contains(&0) {
        return Err(TransferError::NoName(shown()));
    }
    let mut path = Vec::with_capacity(name.len());
    let mut depth = 0;
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(TransferError::Upwards(shown())),
            part if part.len() > NAME_MAX => {
                return Err(TransferError::LongName(shown(), part.len()));
            }
            part => {
                if depth > 0 {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
                depth += 1;
            }
        }
    }
    if depth > DEPTH_MAX {
        return Err(TransferError::LongPath(shown(), depth, DEPTH_MAX));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        let clean =
            |name: &str| clean(name.as_bytes()).map(|path| String::from_utf8(path).unwrap());
        assert_eq!(clean("./a//b/./c/").unwrap(), "a/b/c");
        assert_eq!(clean("./").unwrap(), "");
        assert!(matches!(
            clean("/etc/passwd"),
            Err(TransferError::Absolute(_))
        ));
        for name in ["..", "a/../b", "../a", "a/.."] {
            assert!(
                matches!(clean(name), Err(TransferError::Upwards(_))),
                "{name}"
            );
        }
        assert!(matches!(
            clean(&"x".repeat(256)),
            Err(TransferError::LongName(_, 256))
        ));
        assert!(matches!(
            clean(&"x/".repeat(5_000)),
            Err(TransferError::LongPath(_, 5_000, _))
        ));
        assert!(matches!(clean(""), Err(TransferError::NoName(_))));
        assert_eq!(clean("..a/b..").unwrap(), "..a/b..");
    }
}
