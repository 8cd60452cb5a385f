//! The environment of a process: what is allowed of this process's own, and
//! what the caller gives. Secrets of the host are not inherited.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

/// Names that are inherited, and all that begin with `LC_`.
const ALLOWED: [&str; 7] = ["PATH", "HOME", "TMPDIR", "TZ", "LANG", "LANGUAGE", "TERM"];
/// Where programs are looked for when nobody says.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables by name.
pub(crate) type Environment = BTreeMap<OsString, OsString>;

/// What a process gets: the allowed part of `own`, and over it each of `given`.
pub(crate) fn compose<'a>(
    own: impl IntoIterator<Item = (OsString, OsString)>,
    given: impl IntoIterator<Item = &'a (OsString, OsString)>,
) -> Environment {
    let allowed = |name: &OsStr| {
        name.to_str()
            .is_some_and(|name| ALLOWED.contains(&name) || name.starts_with("LC_"))
    };
    let mut all: Environment = own.into_iter().filter(|(name, _)| allowed(name)).collect();
    all.entry("PATH".into()).or_insert(DEFAULT_PATH.into());
    all.extend(given.into_iter().cloned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_inherited() {
        let own = [("HOME", "/root"), ("TOKEN", "secret"), ("LC_ALL", "C")];
        let own = own.map(|(name, value)| (name.into(), value.into()));
        let given = [("HOME".into(), "/home".into()), ("X".into(), "1".into())];
        let all = compose(own, &given);
        let shown: Vec<_> = all
            .iter()
            .map(|(n, v)| (n.to_str().unwrap(), v.to_str().unwrap()))
            .collect();
        let expected = [
            ("HOME", "/home"),
            ("LC_ALL", "C"),
            ("PATH", DEFAULT_PATH),
            ("X", "1"),
        ];
        assert_eq!(shown, expected);
    }
}
