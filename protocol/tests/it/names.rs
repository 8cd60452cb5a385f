//! Which bytes are names.

use cairn_protocol::{Name, NameError, XattrName};
use proptest::collection::vec;
use proptest::prelude::*;

#[test]
fn a_name_has_1_to_255_bytes() {
    assert_eq!(Name::new(b""), Err(NameError::Empty));
    assert!(Name::new(&[b'a'; 255]).is_ok());
    assert_eq!(
        Name::new(&[b'a'; 256]),
        Err(NameError::TooLong { len: 256, max: 255 })
    );
    assert_eq!(XattrName::new(b""), Err(NameError::Empty));
    assert!(XattrName::new(&[b'a'; 255]).is_ok());
    assert_eq!(
        XattrName::new(&[b'a'; 256]),
        Err(NameError::TooLong { len: 256, max: 255 })
    );
}

#[test]
fn dots_are_names_only_in_company() {
    assert_eq!(Name::new(b"."), Err(NameError::Dots));
    assert_eq!(Name::new(b".."), Err(NameError::Dots));
    assert!(Name::new(b"...").is_ok());
    assert!(Name::new(b".a").is_ok());
    assert!(XattrName::new(b".").is_ok());
}

#[test]
fn every_byte_but_two_may_be_in_a_name() {
    for byte in 0..=u8::MAX {
        let refused = byte == 0 || byte == b'/';
        assert_eq!(Name::new(&[b'a', byte]).is_err(), refused, "{byte}");
        assert_eq!(XattrName::new(&[b'a', byte]).is_err(), byte == 0, "{byte}");
    }
}

proptest! {
    #[test]
    fn names_that_differ_look_different(a in vec(any::<u8>(), 1..6), b in vec(any::<u8>(), 1..6)) {
        if let (Ok(a), Ok(b)) = (Name::new(&a), Name::new(&b)) {
            prop_assert_eq!(a == b, a.to_string() == b.to_string());
            prop_assert!(!a.to_string().contains(char::is_control));
        }
    }

    #[test]
    fn i12_decoding_a_name_checks_it(bytes in vec(any::<u8>(), 0..300)) {
        let encoded = postcard::to_stdvec(&bytes).unwrap();
        let decoded = postcard::from_bytes::<Name>(&encoded);
        prop_assert_eq!(decoded.ok(), Name::new(&bytes).ok());
    }
}
