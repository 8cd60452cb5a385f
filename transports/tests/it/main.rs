//! The carriers, the driver, the server and the client, over real sockets on the
//! loopback interface.

mod carriers;
mod shelf;
mod world;
