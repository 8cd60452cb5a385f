//! The carriers, the driver, the server and the client, over real sockets on the
//! loopback interface.
#![allow(missing_docs, reason = "tests")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes in tests are far below every limit"
)]

mod carriers;
mod every_byte;
mod farewell;
mod faults;
mod model;
mod raw;
mod security;
mod shelf;
mod strangers;
mod world;
