//! Points in time as a filesystem keeps them. This crate never asks what time it is.

use serde::{Deserialize, Serialize};

/// The nanosecond part of a time was a second or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{nanos} nanoseconds are a second or more")]
pub struct TimestampError {
    /// The refused part, in nanoseconds.
    pub nanos: u32,
}

/// A time in seconds since 1970-01-01T00:00:00Z and nanoseconds after that second.
///
/// Times before 1970 have negative seconds and still count nanoseconds forward.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "Parts")]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

#[derive(Deserialize)]
struct Parts {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self {
        seconds: 0,
        nanos: 0,
    };

    /// The time `nanos` nanoseconds after `seconds`.
    ///
    /// # Errors
    ///
    /// [`TimestampError`] when `nanos` is 1 000 000 000 or more.
    pub const fn new(seconds: i64, nanos: u32) -> Result<Self, TimestampError> {
        if nanos < 1_000_000_000 {
            Ok(Self { seconds, nanos })
        } else {
            Err(TimestampError { nanos })
        }
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after the second, less than 1 000 000 000.
    pub const fn nanos(self) -> u32 {
        self.nanos
    }
}

impl TryFrom<Parts> for Timestamp {
    type Error = TimestampError;

    fn try_from(parts: Parts) -> Result<Self, TimestampError> {
        Self::new(parts.seconds, parts.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ordered_and_bounded() {
        let time = |seconds, nanos| Timestamp::new(seconds, nanos).unwrap();
        assert!(time(-1, 999_999_999) < Timestamp::EPOCH);
        assert!(time(1, 2) > time(1, 1));
        assert!(Timestamp::new(0, 1_000_000_000).is_err());
    }

    #[test]
    fn decoding_checks_the_nanoseconds() {
        let encoded = postcard::to_stdvec(&(5_i64, 1_000_000_000_u32)).unwrap();
        assert!(postcard::from_bytes::<Timestamp>(&encoded).is_err());
        let encoded = postcard::to_stdvec(&(5_i64, 999_999_999_u32)).unwrap();
        assert_eq!(
            postcard::from_bytes(&encoded),
            Ok(Timestamp::new(5, 999_999_999).unwrap())
        );
    }
}
