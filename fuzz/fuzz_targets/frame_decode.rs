//! Any stream, however it is split, is messages or an error (I12); a message that
//! was read is written and read again as the same.
#![no_main]

use cairn_protocol::FRAME_MAX;
use cairn_protocol::wire::{FrameReader, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, stream) = input;
    let mut reader = FrameReader::new(FRAME_MAX);
    for part in stream.chunks(usize::from(size) + 1) {
        reader.push(part);
        loop {
            let frame = match reader.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return,
            };
            if let Ok(Some(message)) = Message::from_frame(&frame) {
                let again = message.to_frame(frame.lane);
                assert_eq!(Message::from_frame(&again), Ok(Some(message)));
            }
        }
    }
});
