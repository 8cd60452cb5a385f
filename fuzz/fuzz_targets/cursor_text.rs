//! Any text is a cursor or an error, and a cursor's own text gives the cursor back.

#![no_main]

use cairn_protocol::{Cursor, NodeId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert!(text.is_ascii());
    }
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
});
