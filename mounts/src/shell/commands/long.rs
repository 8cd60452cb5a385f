//! The long form of `ls`, and how nodes are shown in it.

use std::fmt::Write;

use cairn_protocol::{NodeKind, Timestamp};

use super::dates::Date;
use super::modes::letters;
use crate::shell::wire::Node;

/// The letter of a kind.
pub(crate) fn kind_letter(kind: NodeKind) -> char {
    match kind {
        NodeKind::File => '-',
        NodeKind::Dir => 'd',
        NodeKind::Symlink => 'l',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
        NodeKind::CharDevice => 'c',
        NodeKind::BlockDevice => 'b',
    }
}

/// The name of a user or a group. Who serves the workspace is the shell's user.
pub(crate) fn user(id: u32) -> String {
    if id == rustix::process::geteuid().as_raw() {
        return "user".into();
    }
    match id {
        0 => "root".into(),
        65_534 => "nobody".into(),
        id => id.to_string(),
    }
}

/// How sizes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    Bytes,
    /// In units of 1024 bytes, with a letter.
    Human,
    /// In units of 1000 bytes, with a letter.
    Si,
}

/// A size with one digit after the point if it is below ten, rounded up.
pub(crate) fn size_text(bytes: u64, sizes: Sizes) -> String {
    let (base, letters) = match sizes {
        Sizes::Bytes => return bytes.to_string(),
        Sizes::Human => (1024, "KMGTPE"),
        Sizes::Si => (1000, "kMGTPE"),
    };
    if bytes < base {
        return bytes.to_string();
    }
    let (mut unit, mut letter) = (base, 0);
    while bytes.div_ceil(unit) >= base && letter + 1 < letters.len() {
        unit = unit.saturating_mul(base);
        letter += 1;
    }
    let shown = &letters[letter..=letter];
    let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(unit));
    if tenths < 100 {
        return format!("{}.{}{shown}", tenths / 10, tenths % 10);
    }
    format!("{}{shown}", bytes.div_ceil(unit))
}

/// How times are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// Month and day, with the hour or the year.
    Short,
    Full,
    LongIso,
    Iso,
    /// Seconds since 1970.
    Seconds,
}

/// A time in a style.
pub(crate) fn time_text(time: Timestamp, now: Timestamp, times: Times) -> String {
    match times {
        Times::Short => Date::short(time, now),
        Times::Full => Date::full(time),
        Times::LongIso => Date::long_iso(time),
        Times::Iso => Date::long_iso(time).get(5..).unwrap_or_default().into(),
        Times::Seconds => time.seconds().to_string(),
    }
}

/// What the long form shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    pub(crate) owner: bool,
    pub(crate) group: bool,
    /// Numbers in place of names.
    pub(crate) numeric: bool,
    pub(crate) sizes: Sizes,
    pub(crate) times: Times,
}

/// One line of the long form, in columns.
#[derive(Debug)]
pub(crate) struct Row {
    mode: String,
    links: String,
    owner: String,
    group: String,
    size: String,
    time: String,
}

impl Row {
    pub(crate) fn of(node: &Node, time: Timestamp, now: Timestamp, form: Form) -> Self {
        let name = |id: u32| {
            if form.numeric {
                id.to_string()
            } else {
                user(id)
            }
        };
        Self {
            mode: format!("{}{}", kind_letter(node.kind), letters(node.perm)),
            links: node.nlink.to_string(),
            owner: if form.owner {
                name(node.uid)
            } else {
                String::new()
            },
            group: if form.group {
                name(node.gid)
            } else {
                String::new()
            },
            size: size_text(node.size, form.sizes),
            time: time_text(time, now, form.times),
        }
    }
}

/// The rows as text, their columns aligned, each up to the name.
pub(crate) fn align(rows: &[Row]) -> Vec<String> {
    let width = |of: fn(&Row) -> &String| rows.iter().map(|row| of(row).len()).max().unwrap_or(0);
    let (links, owner, group) = (
        width(|row| &row.links),
        width(|row| &row.owner),
        width(|row| &row.group),
    );
    let (size, time) = (width(|row| &row.size), width(|row| &row.time));
    let line = |row: &Row| {
        let mut line = format!("{} {:>links$} ", row.mode, row.links);
        for (text, width) in [(&row.owner, owner), (&row.group, group)] {
            if width > 0 {
                // Writing to text does not fail.
                let _ = write!(line, "{text:<width$} ");
            }
        }
        line + &format!("{:>size$} {:>time$} ", row.size, row.time)
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up() {
        let human = |bytes| size_text(bytes, Sizes::Human);
        assert_eq!(human(1023), "1023");
        assert_eq!(human(1024), "1.0K");
        assert_eq!(human(1025), "1.1K");
        assert_eq!(human(10 << 10), "10K");
        assert_eq!(human((10 << 10) + 1), "11K");
        assert_eq!(human(1 << 20), "1.0M");
        assert_eq!(human(u64::MAX), "16E");
        assert_eq!(size_text(1000, Sizes::Si), "1.0k");
    }
}
