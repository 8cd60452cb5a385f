//! Lists, bytes and texts that have at most so many elements.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

/// At most `MAX` values. Decoding refuses more before it makes room for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T, const MAX: usize>(Vec<T>);

/// At most `MAX` bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob<const MAX: usize>(Bytes);

/// A text of at most `MAX` bytes of UTF-8, for people only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<const MAX: usize>(String);

/// There are more elements than there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} elements are more than {max}")]
pub struct TooMany {
    /// How many there are.
    pub len: usize,
    /// How many there may be.
    pub max: usize,
}

fn check(len: usize, max: usize) -> Result<(), TooMany> {
    if len > max {
        return Err(TooMany { len, max });
    }
    Ok(())
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> List<T, MAX> {
    /// The values as a vector.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = TooMany;

    fn try_from(values: Vec<T>) -> Result<Self, TooMany> {
        check(values.len(), MAX)?;
        Ok(Self(values))
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Serialize, const MAX: usize> Serialize for List<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = List<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let said = values.size_hint().unwrap_or(0);
        check(said, MAX).map_err(de::Error::custom)?;
        // What was said costs nothing to say: room is made as values come.
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            check(list.len() + 1, MAX).map_err(de::Error::custom)?;
            list.push(value);
        }
        Ok(List(list))
    }
}

impl<const MAX: usize> Blob<MAX> {
    /// The bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl<const MAX: usize> TryFrom<Bytes> for Blob<MAX> {
    type Error = TooMany;

    fn try_from(bytes: Bytes) -> Result<Self, TooMany> {
        check(bytes.len(), MAX)?;
        Ok(Self(bytes))
    }
}

impl<const MAX: usize> Deref for Blob<MAX> {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.0
    }
}

impl<const MAX: usize> Serialize for Blob<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Blob<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Lent, not copied, before its length is known to be allowed.
        let bytes = <&[u8]>::deserialize(deserializer)?;
        check(bytes.len(), MAX).map_err(de::Error::custom)?;
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }
}

impl<const MAX: usize> Text<MAX> {
    /// The text, without what is too much of it.
    pub fn cut(text: &str) -> Self {
        let end = (0..=text.len().min(MAX)).rfind(|at| text.is_char_boundary(*at));
        Self(text[..end.unwrap_or(0)].to_owned())
    }
}

impl<const MAX: usize> Deref for Text<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> Serialize for Text<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        check(text.len(), MAX).map_err(de::Error::custom)?;
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i12_no_list_has_more_than_its_maximum() {
        let encoded = postcard::to_stdvec(&vec![1_u8; 4]).unwrap();
        let list: List<u8, 4> = postcard::from_bytes(&encoded).unwrap();
        assert_eq!(list.into_vec(), [1; 4]);
        assert!(postcard::from_bytes::<List<u8, 3>>(&encoded).is_err());
        assert!(postcard::from_bytes::<Blob<4>>(&encoded).is_ok());
        assert!(postcard::from_bytes::<Blob<3>>(&encoded).is_err());
        assert!(postcard::from_bytes::<Text<4>>(&encoded).is_ok());
        assert!(postcard::from_bytes::<Text<3>>(&encoded).is_err());
        // A length that is not there.
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(postcard::from_bytes::<List<u64, { usize::MAX }>>(&huge).is_err());
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(&*Text::<4>::cut("abé"), "abé");
        assert_eq!(&*Text::<3>::cut("abé"), "ab");
        assert_eq!(&*Text::<0>::cut("é"), "");
    }
}
