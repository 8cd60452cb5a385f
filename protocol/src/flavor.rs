//! Where encodings go when nobody needs a vector for each: to the end of one
//! that is used again, or nowhere, because only their length counts or whether
//! they are certain bytes. Millions of changes and edits are encoded for no more
//! than that.

use postcard::ser_flavors::{Flavor, Size};
use serde::Serialize;

/// Adds what is encoded to a vector.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Compares what is encoded with the bytes that are left. It fails at the first
/// that differs.
struct Same<'a>(&'a [u8]);

impl Flavor for Same<'_> {
    type Output = bool;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        let rest = self.0.strip_prefix(bytes);
        self.0 = rest.ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<bool> {
        Ok(self.0.is_empty())
    }
}

/// Adds the encoding of a value to a vector.
pub(crate) fn append<T: Serialize>(value: &T, to: &mut Vec<u8>) -> postcard::Result<()> {
    postcard::serialize_with_flavor(value, Append(to))
}

/// The length of the encoding of a value.
pub(crate) fn length<T: Serialize>(value: &T) -> postcard::Result<usize> {
    postcard::serialize_with_flavor(value, Size::default())
}

/// Whether these bytes are the encoding of a value.
pub(crate) fn is_encoding<T: Serialize>(value: &T, bytes: &[u8]) -> bool {
    postcard::serialize_with_flavor(value, Same(bytes)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ways_to_encode_agree() {
        let value = (7_u8, 300_u64, vec![1_u8, 2, 3], Some("text"), [0_u8; 9]);
        let encoded = postcard::to_stdvec(&value).unwrap();
        let mut appended = vec![9];
        append(&value, &mut appended).unwrap();
        assert_eq!(appended[1..], encoded);
        assert_eq!(length(&value), Ok(encoded.len()));
        assert!(is_encoding(&value, &encoded));
        let longer = [&encoded[..], &[0]].concat();
        let mut other = encoded.clone();
        *other.last_mut().unwrap() = 1;
        for wrong in [&longer[..], &encoded[1..], &encoded[..5], &other, &[]] {
            assert!(!is_encoding(&value, wrong));
        }
    }
}
