//! What a host and a daemon say to each other, beside sync: the rules `X` of
//! `SPEC.md`.
//!
//! Each connection of the two is for one purpose, which its first frame names,
//! whoever dialled: a session of sync, in which the host is the hub, or *calls*, by
//! which the host starts execs and reads them. A call is answered once; any number
//! up to a limit are under way. A connection is a carrier of `cairn-transports`, so
//! what is not read is not sent.
//!
//! | module | owns |
//! | --- | --- |
//! | `greeting` | the first frame, and its answer |
//! | `wire` | calls and replies |
//! | `plan` | a command and its options, as bytes |
//! | `fault` | why a call fails, by a number |
//! | `caller` | the host's end of a connection for calls |
//! | `link` | the host's connections to one daemon, made again when they break |
//! | `lobby` | a host that waits for its daemon to dial |

mod caller;
mod fault;
mod greeting;
mod link;
mod lobby;
mod plan;
mod wire;

pub(crate) use caller::{CallError, Caller};
pub(crate) use fault::{Code, Fault};
pub(crate) use greeting::{Card, Greeting, Purpose, Role, greet, receive, refuse, welcome};
pub use link::LinkError;
pub(crate) use link::{Link, Source};
pub(crate) use lobby::{Lobby, NoHubs};
pub(crate) use plan::Plan;
pub(crate) use wire::{
    CALL, CALLS_MAX, CANCEL, Call, CallFrame, EventWire, PIECE_MAX, READ_MAX, REPLY, Reply,
    ReplyFrame, decode, encode,
};
