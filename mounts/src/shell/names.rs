//! Names between the store, where they are bytes, and the interpreter, which
//! has text and refuses some of it.
//!
//! A byte that is not part of a character, or is part of one that the
//! interpreter refuses in names (control characters, marks that change the
//! direction of text, characters without width), is shown as a character of
//! its own from the end of the private planes: `U+10FF00` plus the byte. What
//! is shown so is the same file again when a script uses it as a name.

use std::path::Path;

/// The character that stands for the byte 0.
const FIRST: u32 = 0x0010_FF00;

/// A name or path as the interpreter gets it.
pub(crate) fn to_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_refused(c) {
                let mut buffer = [0; 4];
                let encoded = c.encode_utf8(&mut buffer);
                text.extend(encoded.bytes().map(stand_in));
            } else {
                text.push(c);
            }
        }
        text.extend(chunk.invalid().iter().copied().map(stand_in));
    }
    text
}

/// The bytes that a name or path of the interpreter stands for.
pub(crate) fn to_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c).checked_sub(FIRST).map(u8::try_from) {
            Some(Ok(byte)) => bytes.push(byte),
            _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// The bytes of a path of the interpreter.
pub(crate) fn path_bytes(path: &Path) -> Vec<u8> {
    match path.to_str() {
        Some(text) => to_bytes(text),
        // The interpreter makes paths of text only.
        None => path.as_os_str().as_encoded_bytes().to_vec(),
    }
}

/// The character that stands for a byte.
pub(crate) fn stand_in(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Whether the interpreter refuses it in a name, or it stands for a byte.
fn is_refused(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{180e}' | '\u{200b}'..='\u{200d}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' | '\u{10ff00}'..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_come_back() {
        let names: [&[u8]; 7] = [
            b"plain",
            "größe-中".as_bytes(),
            b"tab\tand\nline",
            b"\xff\xfe",
            "\u{202e}gpj.exe".as_bytes(),
            "\u{10ff41}".as_bytes(),
            b"\xf4\x8f\xbf\xbf\x80",
        ];
        for name in names {
            let text = to_text(name);
            assert!(!text.chars().any(char::is_control), "{text:?}");
            assert_eq!(to_bytes(&text), name);
        }
        let all: Vec<u8> = (1..=255).collect();
        assert_eq!(to_bytes(&to_text(&all)), all);
    }

    #[test]
    fn ordinary_names_are_themselves() {
        assert_eq!(to_text("a b'\"\\".as_bytes()), "a b'\"\\");
    }
}
