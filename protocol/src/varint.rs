//! Unsigned numbers of variable length: 7 bits a byte, low bits first (LEB128).
//!
//! The same bytes postcard writes; unlike postcard, reading takes only the shortest form.

/// Longest form of a `u64`, in bytes.
pub(crate) const LEN_MAX: usize = 10;

/// Appends `value` to `out`.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

/// Takes a number from the front of `input`, or `None` if none is there in its shortest form.
pub(crate) fn take(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..).step_by(7).take(LEN_MAX) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return (byte != 0 || shift == 0).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        for value in [0, 1, 127, 128, 300, 1 << 63, u64::MAX]
            .into_iter()
            .chain((0..64).map(|n| 1 << n))
        {
            let mut out = Vec::new();
            put(&mut out, value);
            assert!(out.len() <= LEN_MAX);
            assert_eq!(out, postcard::to_stdvec(&value).unwrap());
            let mut input = &out[..];
            assert_eq!((take(&mut input), input), (Some(value), &[][..]));
        }
    }

    #[test]
    fn padded_cut_and_overlong_numbers_are_refused() {
        let bad: [&[u8]; 5] = [&[], &[0x80], &[0x80, 0], &[0xff; 10], &[0xff; 11]];
        for mut input in bad {
            assert_eq!(take(&mut input), None);
        }
        let mut too_large: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert_eq!(take(&mut too_large), None);
    }
}
