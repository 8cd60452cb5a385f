//! Permissions as they are written: in octal, or as changes such as `u+x,go=`.

/// A mode to set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// These bits; `true` if set-id bits of a directory go unless they are given.
    Bits(u16, bool),
    /// These changes, in order.
    Changes(Vec<Change>),
}

/// One change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Whose, as a mask of the bits: none given is all, within the umask.
    who: u16,
    /// `+`, `-` or `=`.
    operation: char,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    /// Letters out of `rwxXst`.
    Letters(String),
    /// The permissions of the user, the group or the others.
    Copy(char),
}

impl Mode {
    /// Reads a mode.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) {
            let bits = u16::from_str_radix(text, 8)
                .ok()
                .filter(|bits| *bits <= 0o7777)?;
            return Some(Self::Bits(bits, text.len() > 4));
        }
        let mut changes = Vec::new();
        for part in text.split(',') {
            changes_of(part, &mut changes)?;
        }
        Some(Self::Changes(changes))
    }

    /// The permissions that something with these gets.
    pub(crate) fn apply(&self, perm: u16, umask: u16, is_dir: bool) -> u16 {
        match self {
            // A directory keeps its set-id bits when it is not said otherwise.
            Self::Bits(bits, false) if is_dir => bits | perm & 0o6000,
            Self::Bits(bits, _) => *bits,
            Self::Changes(changes) => changes
                .iter()
                .fold(perm, |perm, change| change.apply(perm, umask, is_dir)),
        }
    }
}

fn changes_of(part: &str, changes: &mut Vec<Change>) -> Option<()> {
    let is_who = |c: char| "ugoa".contains(c);
    let rest = part.trim_start_matches(is_who);
    let mut who = 0;
    for c in part[..part.len() - rest.len()].chars() {
        who |= match c {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            _ => 0o7777,
        };
    }
    let mut rest = rest;
    if rest.is_empty() {
        return None;
    }
    while let Some(operation) = rest.chars().next() {
        if !"+-=".contains(operation) {
            return None;
        }
        let after = &rest[1..];
        let next = after.find(['+', '-', '=']).unwrap_or(after.len());
        let letters = &after[..next];
        let what = match letters {
            "u" | "g" | "o" => What::Copy(letters.chars().next()?),
            _ if letters.chars().all(|c| "rwxXst".contains(c)) => What::Letters(letters.into()),
            _ => return None,
        };
        changes.push(Change {
            who,
            operation,
            what,
        });
        rest = &after[next..];
    }
    Some(())
}

impl Change {
    fn apply(&self, perm: u16, umask: u16, is_dir: bool) -> u16 {
        let (who, allowed) = match self.who {
            0 => (0o7777, !umask),
            who => (who, 0o7777),
        };
        let mut bits = 0;
        match &self.what {
            What::Letters(letters) => {
                for letter in letters.chars() {
                    bits |= match letter {
                        'r' => 0o444,
                        'w' => 0o222,
                        'x' => 0o111,
                        'X' if is_dir || perm & 0o111 != 0 => 0o111,
                        's' => 0o6000,
                        't' => 0o1000,
                        _ => 0,
                    };
                }
            }
            What::Copy(from) => {
                let shift = match from {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
                bits = (perm >> shift & 7) * 0o111;
            }
        }
        let bits = bits & who & allowed;
        match self.operation {
            '+' => perm | bits,
            '-' => perm & !bits,
            _ => {
                // A directory's set-id bits stay unless they are named.
                let kept = if is_dir { 0o6000 & !bits } else { 0 };
                perm & !(who & !kept) | bits
            }
        }
    }
}

/// Permissions as `ls` shows them, without the kind.
pub(crate) fn letters(perm: u16) -> String {
    let mut text = String::with_capacity(9);
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = perm >> shift & 7;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, perm & special != 0) {
            (true, true) => set,
            (false, true) => set.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(mode: &str, perm: u16) -> u16 {
        Mode::parse(mode).unwrap().apply(perm, 0o022, false)
    }

    #[test]
    fn modes_are_those_of_chmod() {
        assert_eq!(applied("755", 0o600), 0o755);
        assert_eq!(applied("u+x,go=", 0o644), 0o700);
        assert_eq!(applied("+w", 0o444), 0o644);
        assert_eq!(applied("a+w", 0o444), 0o666);
        assert_eq!(applied("g=u,o-r", 0o754), 0o770);
        assert_eq!(applied("+X", 0o644), 0o644);
        assert_eq!(applied("u+s,+t", 0o755), 0o5755);
        for bad in ["", "9", "u", "u+q", "z+x", "77777"] {
            assert_eq!(Mode::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn letters_show_set_id_bits() {
        assert_eq!(letters(0o644), "rw-r--r--");
        assert_eq!(letters(0o5711), "rws--x--t");
        assert_eq!(letters(0o4600), "rwS------");
    }
}
