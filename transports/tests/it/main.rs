//! The carriers, the driver, the server and the client, over real sockets on the
//! loopback interface.

mod carriers;
mod faults;
mod raw;
mod security;
mod shelf;
mod strangers;
mod world;
