//! Names of directory entries and of extended attributes: bytes, checked once.
//!
//! A value of these types is valid; nothing below them checks again. No character
//! set is assumed and no normalisation is done: two names are equal when their
//! bytes are.

use std::borrow::Borrow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

use crate::limits::{NAME_MAX, XATTR_NAME_MAX};

/// Why some bytes are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// A name has at least one byte.
    #[error("the name is empty")]
    Empty,
    /// The name is longer than its kind allows.
    #[error("the name has {len} bytes, more than {max}")]
    TooLong {
        /// Length of the name, in bytes.
        len: usize,
        /// Longest allowed, in bytes.
        max: usize,
    },
    /// The name has a byte that no name of its kind may have.
    #[error("the name has the byte {byte:#04x} at {at}")]
    Byte {
        /// The byte.
        byte: u8,
        /// Its place, counted from 0.
        at: usize,
    },
    /// `.` and `..` mean the directory itself and its parent.
    #[error("`.` and `..` are not names of entries")]
    Dots,
}

/// The name of a directory entry: 1 to 255 bytes, none of them `/` or NUL, not `.` or `..`.
///
/// Shown with what is not printable UTF-8 escaped, and a backslash doubled, so two
/// names never look the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

/// The name of an extended attribute: 1 to 255 bytes, none of them NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Arc<[u8]>);

impl Name {
    /// The name with these bytes.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the bytes are not a name.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        check(bytes, NAME_MAX, b"/\0")?;
        if matches!(bytes, b"." | b"..") {
            return Err(NameError::Dots);
        }
        Ok(Self(bytes.into()))
    }

    /// The name of a node of which no name is known.
    pub(crate) fn lost() -> Self {
        Self(b"lost".as_slice().into())
    }
}

impl XattrName {
    /// The name with these bytes.
    ///
    /// # Errors
    ///
    /// [`NameError`] when the bytes are not a name.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        check(bytes, XATTR_NAME_MAX, b"\0")?;
        Ok(Self(bytes.into()))
    }
}

fn check(bytes: &[u8], max: usize, refused: &[u8]) -> Result<(), NameError> {
    if bytes.is_empty() {
        return Err(NameError::Empty);
    }
    if bytes.len() > max {
        return Err(NameError::TooLong {
            len: bytes.len(),
            max,
        });
    }
    match bytes.iter().position(|byte| refused.contains(byte)) {
        Some(at) => Err(NameError::Byte {
            byte: bytes[at],
            at,
        }),
        None => Ok(()),
    }
}

fn write_escaped(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for part in bytes.utf8_chunks() {
        for character in part.valid().chars() {
            if character == '\\' || character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        part.invalid()
            .iter()
            .try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
    }
    Ok(())
}

macro_rules! name_traits {
    ($name:ident) => {
        impl $name {
            /// The bytes of the name.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = NameError;

            fn try_from(bytes: &[u8]) -> Result<Self, NameError> {
                Self::new(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_escaped(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = deserializer.deserialize_bytes(BytesVisitor)?;
                Self::new(bytes).map_err(de::Error::custom)
            }
        }
    };
}
name_traits!(Name);
name_traits!(XattrName);

/// Takes bytes straight from the input, so a name that is too long is never copied.
struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = &'de [u8];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a name")
    }

    fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_never_shows_two_names_alike() {
        let show = |bytes: &[u8]| Name::new(bytes).unwrap().to_string();
        assert_eq!(show("Grüße.txt".as_bytes()), "Grüße.txt");
        assert_eq!(show(b"a\xff\n"), "a\\xff\\n");
        assert_eq!(show(b"a\\xff"), "a\\\\xff");
        assert_eq!(format!("{:?}", Name::new(b"x").unwrap()), "Name(x)");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        assert_eq!(
            Name::new(b"a/b"),
            Err(NameError::Byte { byte: b'/', at: 1 })
        );
        assert_eq!(
            XattrName::new(b"user.a\0"),
            Err(NameError::Byte { byte: 0, at: 6 })
        );
        assert_eq!(
            Name::new(b"..").unwrap_err().to_string(),
            "`.` and `..` are not names of entries"
        );
    }

    #[test]
    fn attribute_names_may_have_slashes() {
        assert_eq!(XattrName::new(b"user.a/b").unwrap().as_bytes(), b"user.a/b");
    }
}
