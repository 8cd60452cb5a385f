//! Why a transfer was refused or broke off. Each names the entry.

use crate::text;

/// Longest part of a name in a message.
const SHOWN_MAX: usize = 120;

/// Why a transfer cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TransferError {
    /// The name of an entry begins with a slash.
    #[error(
        "the archive names {0}: an absolute name is refused; make the archive with relative names"
    )]
    Absolute(Shown),
    /// The name of an entry leads out of the top.
    #[error("the archive names {0}: a name with `..` is refused, as it could lead anywhere")]
    Upwards(Shown),
    /// A component of the name of an entry is too long.
    #[error("the archive names {0}: a name may have at most 255 bytes, this has {1}")]
    LongName(Shown, usize),
    /// The name of an entry as a whole is too long.
    #[error("the archive names {0}: a path may have at most {2} components, this has {1}")]
    LongPath(Shown, usize, usize),
    /// The name of an entry holds a NUL or is empty.
    #[error("an entry of the archive has no usable name: {0:?}")]
    NoName(Shown),
    /// A component of the path of an entry is a symbolic link.
    #[error(
        "{entry} would go through the symbolic link {link}, which is refused; remove the link first"
    )]
    ThroughLink {
        /// The entry.
        entry: Shown,
        /// The link.
        link: Shown,
    },
    /// A component of the path of an entry is neither a directory nor a link.
    #[error("{entry} would go into {file}, which is not a directory; remove that first")]
    ThroughFile {
        /// The entry.
        entry: Shown,
        /// What is in the way.
        file: Shown,
    },
    /// Something has the name already.
    #[error("{0} is there already; --replace replaces what has the same name")]
    Exists(Shown),
    /// A directory with entries has the name of something else.
    #[error(
        "{0} is a directory with something in it, and is not replaced by what is none; remove it first"
    )]
    NotEmpty(Shown),
    /// The first name of a node is missing.
    #[error("{entry} is another name of {target}, which is not there")]
    NoTarget {
        /// The entry.
        entry: Shown,
        /// The name it is to share its node with.
        target: Shown,
    },
    /// An extended header is larger than anything needs.
    #[error(
        "an extended header at byte {at} of the archive has {size} bytes; more than {max} are refused"
    )]
    LargeHeader {
        /// Where it begins.
        at: u64,
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// A header makes no sense.
    #[error("the archive is damaged at byte {at}: {why}")]
    Damaged {
        /// Where the block begins.
        at: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A sparse file makes no sense.
    #[error("the archive is damaged: the map of the sparse file {0} makes no sense")]
    SparseMap(Shown),
    /// It is no archive.
    #[error("this is not a tar archive; {0}")]
    NotTar(&'static str),
    /// The archive ends in the midst of an entry.
    #[error("the archive is cut short: it ends in {0}")]
    CutShort(Shown),
    /// The person wants it to end.
    #[error("interrupted")]
    Interrupted,
}

/// A name that a message can show: escaped, and not too long.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Shown(String);

impl Shown {
    /// Shows a path; the top itself has none.
    pub(crate) fn new(path: &[u8]) -> Self {
        if path.is_empty() {
            return Self(".".into());
        }
        if path.len() <= SHOWN_MAX {
            return Self(text::escaped(path));
        }
        Self(format!(
            "{}... ({} bytes)",
            text::escaped(&path[..SHOWN_MAX]),
            path.len()
        ))
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_in_a_message() {
        let shown = Shown::new(&vec![b'x'; 70_000]).to_string();
        assert!(
            shown.len() < 200 && shown.ends_with("(70000 bytes)"),
            "{shown}"
        );
        assert_eq!(Shown::new(b"a\nb").to_string(), "a\\nb");
    }
}
