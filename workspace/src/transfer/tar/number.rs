//! Numbers in headers: octal, binary where octal has no room, and decimal.

use cairn::Timestamp;

/// A number of a header: octal digits among blanks, or, as GNU tar does it, two's
/// complement with the first bit set. `None` if it is neither, or too large.
pub(super) fn field(bytes: &[u8]) -> Option<i64> {
    match bytes.first()? {
        first if first & 0x80 != 0 => binary(bytes),
        _ => octal(bytes),
    }
}

/// The same, where it cannot be negative.
pub(super) fn unsigned(bytes: &[u8]) -> Option<u64> {
    u64::try_from(field(bytes)?).ok()
}

fn binary(bytes: &[u8]) -> Option<i64> {
    // The first bit is only a mark; the next one is the sign.
    let negative = bytes[0] & 0x40 != 0;
    let first = if negative { bytes[0] } else { bytes[0] & 0x3f };
    let mut number = i128::from(first.cast_signed());
    for byte in &bytes[1..] {
        number = number.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    i64::try_from(number).ok()
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.split('\0').next()?.trim();
    if text.is_empty() {
        Some(0)
    } else {
        i64::from_str_radix(text, 8).ok()
    }
}

/// A decimal number.
pub(super) fn decimal<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A time of a pax record: seconds, with as many digits of a fraction as there are.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.get(..9.min(fraction.len()))?;
    let nanos: u32 = format!("{digits:0<9}").parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Timestamp::new(seconds.checked_sub(1)?, 1_000_000_000 - nanos).ok();
    }
    Timestamp::new(seconds, nanos).ok()
}

/// The text of a time, as [`time`] reads it.
pub(super) fn time_text(time: Timestamp) -> String {
    let (seconds, nanos) = (time.seconds(), time.nanos());
    let text = if seconds < 0 && nanos > 0 {
        // -1.25 is two seconds before and three quarters after.
        let whole = seconds + 1;
        format!(
            "{}{}.{:09}",
            if whole == 0 { "-" } else { "" },
            whole,
            1_000_000_000 - nanos
        )
    } else {
        format!("{seconds}.{nanos:09}")
    };
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_octal_or_binary() {
        assert_eq!(field(b"0000644\0"), Some(0o644));
        assert_eq!(field(b"   644 \0"), Some(0o644));
        assert_eq!(field(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(field(b"00009\0"), None);
        assert_eq!(
            field(&[0x80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]),
            Some(1 << 24)
        );
        assert_eq!(field(&[0xff; 12]), Some(-1));
        assert_eq!(unsigned(&[0xff; 12]), None);
        assert_eq!(field(&[0xbf; 12]), None);
    }

    #[test]
    fn times_survive_their_text() {
        for (seconds, nanos) in [
            (0, 0),
            (1, 1),
            (5, 500_000_000),
            (-1, 0),
            (-1, 250_000_000),
            (-3, 999_999_999),
        ] {
            let at = Timestamp::new(seconds, nanos).unwrap();
            assert_eq!(
                time(time_text(at).as_bytes()),
                Some(at),
                "{}",
                time_text(at)
            );
        }
        assert_eq!(time_text(Timestamp::new(-1, 250_000_000).unwrap()), "-0.75");
        assert_eq!(time_text(Timestamp::new(100, 0).unwrap()), "100");
        assert_eq!(time(b"1.1234567891"), Timestamp::new(1, 123_456_789).ok());
        assert_eq!(time(b"x"), None);
    }
}
