//! The records of pax extended headers: `LENGTH KEY=VALUE\n`.

use cairn::Timestamp;

use super::{SOCKET_RECORD, number};
use crate::transfer::{Xattrs, keeps_xattr};

/// What the key of an extended attribute begins with.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// What the extended headers before an entry say of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: Sparse,
    pub(super) socket: bool,
}

/// What they say of a sparse file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Size with the holes.
    pub(super) size: Option<u64>,
    /// Version 0: offset, length, offset, length...
    pub(super) map: Option<Vec<u64>>,
}

impl Pax {
    /// Reads all records of a header. Fails with what is wrong.
    pub(super) fn add(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let (key, value, rest) =
                record(records).ok_or("a record of an extended header makes no sense")?;
            self.set(key, value)
                .ok_or("a number in an extended header makes no sense")?;
            records = rest;
        }
        Ok(())
    }

    /// Unknown keys are passed over, as POSIX wants it.
    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let sparse = &mut self.sparse;
        match key {
            b"path" => self.path = Some(value.into()),
            b"linkpath" => self.link = Some(value.into()),
            b"size" => self.size = Some(number::decimal(value)?),
            b"uid" => self.uid = Some(number::decimal(value)?),
            b"gid" => self.gid = Some(number::decimal(value)?),
            b"mtime" => self.mtime = Some(number::time(value)?),
            b"GNU.sparse.major" => sparse.major = Some(number::decimal(value)?),
            b"GNU.sparse.minor" => sparse.minor = Some(number::decimal(value)?),
            b"GNU.sparse.name" => sparse.name = Some(value.into()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                sparse.size = Some(number::decimal(value)?);
            }
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').map(number::decimal);
                sparse.map = Some(numbers.collect::<Option<_>>()?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                sparse
                    .map
                    .get_or_insert_default()
                    .push(number::decimal(value)?);
            }
            key if key == SOCKET_RECORD.as_bytes() => self.socket = true,
            key => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.add_xattr(decoded(name), value.into());
                }
            }
        }
        Some(())
    }

    fn add_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) {
        if keeps_xattr(&name) {
            self.xattrs.push((name, value));
        }
    }
}

/// The first record: key, value, and what follows.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().take(20).position(|byte| *byte == b' ')?;
    let len: usize = number::decimal(&records[..blank])?;
    let body = records.get(blank + 1..len)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &records[len..]))
}

/// Adds a record.
pub(super) fn put(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Blank, equals sign and newline; the length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend_from_slice(format!("{len} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Adds the record of an extended attribute.
pub(super) fn put_xattr(records: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put(records, &[XATTR, &encoded(name)].concat(), value);
}

/// The name of an attribute as GNU tar has it in a key: an equals sign would end it.
fn encoded(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            other => key.push(*other),
        }
    }
    key
}

fn decoded(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let [first, after @ ..] = rest {
        let (byte, len) = match rest {
            [b'%', b'3', b'D', ..] => (b'=', 3),
            [b'%', b'2', b'5', ..] => (b'%', 3),
            _ => (*first, 1),
        };
        name.push(byte);
        rest = &after[len - 1..];
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive() {
        let mut records = Vec::new();
        let long = vec![b'x'; 98];
        put(&mut records, b"path", &long);
        put_xattr(&mut records, b"user.a=b%", b"\0\n=");
        put(&mut records, b"mtime", b"1.5");
        let mut pax = Pax::default();
        pax.add(&records).unwrap();
        assert_eq!(pax.path, Some(long));
        assert_eq!(pax.xattrs, [(b"user.a=b%".to_vec(), b"\0\n=".to_vec())]);
        assert_eq!(pax.mtime, Timestamp::new(1, 500_000_000).ok());
    }

    #[test]
    fn a_length_counts_its_own_digits() {
        for len in 0..1_200 {
            let mut records = Vec::new();
            put(&mut records, b"k", &vec![b'v'; len]);
            let (key, value, rest) = record(&records).unwrap();
            assert_eq!((key, value.len(), rest.len()), (&b"k"[..], len, 0));
        }
    }

    #[test]
    fn nonsense_is_no_record() {
        for bytes in [
            &b"5"[..],
            b"5 a=b",
            b"99 a=b\n",
            b"0 a=b\n",
            b"2 \n",
            b"6 a=b\n7",
            b"4 ab\n",
            b"x a=b\n",
            b"12 size=x12\n",
        ] {
            assert!(Pax::default().add(bytes).is_err(), "{bytes:?}");
        }
    }
}
