//! Messages as bytes: what goes over a connection, whatever carries it.
//!
//! A connection carries [`Frame`]s; a frame has a [`Message`]. Every list has its
//! maximum in its type, lengths are checked before anything is allocated for
//! them, and any bytes are messages or an error (I12). What a later version adds
//! is passed over where it may be: frames of ignorable kinds, and keys of
//! [`Ext`] that nobody knows.
//!
//! | module | owns |
//! | --- | --- |
//! | `frame` | frames, and cutting a stream into them |
//! | `bounded` | lists, bytes and texts with a maximum |
//! | `code` | the numbers of errors |
//! | `message` | the messages, their kinds and fields |

mod bounded;
mod code;
mod frame;
mod message;

pub use bounded::{Blob, List, Text, TooMany};
pub use code::Code;
pub use frame::{FRAME_HEADER, Frame, FrameReader, IGNORABLE, WireError};
pub use message::*;
