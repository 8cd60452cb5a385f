//! How long a peer may be silent before its connection is given up.
//!
//! A machine that is gone says nothing, and a connection to it waits for ever unless
//! somebody asks. So both ends of a connection, whatever it carries, ask by
//! themselves, three times within the time that the peer may be silent: quinn over
//! QUIC, the system over TCP. Over QUIC a process that was stopped is noticed, too;
//! over TCP its system answers for it, and the pings of who speaks notice it.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// By default; from 100 ms to an hour. The shorter of what both ends of a QUIC connection want counts.
pub const SILENCE: Duration = Duration::from_secs(15);

/// A peer may be silent for so long at least, and at most: less would be nothing but
/// questions, and the system does not count further.
const BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_hours(1));

/// Questions within the time that a peer may be silent.
const QUESTIONS: u32 = 3;

/// What is asked for, as far as it makes sense.
pub(crate) fn bounded(silence: Duration) -> Duration {
    silence.clamp(BOUNDS.0, BOUNDS.1)
}

/// Between two questions whether the peer is there.
pub(crate) fn question(silence: Duration) -> Duration {
    bounded(silence) / QUESTIONS
}

/// Lets the system ask. What it cannot be asked for is left to who speaks.
pub(crate) fn watch(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    // It counts in seconds.
    let every = question(silence).max(Duration::from_secs(1));
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, every)?;
    sockopt::set_tcp_keepintvl(stream, every)?;
    sockopt::set_tcp_keepcnt(stream, QUESTIONS - 1)?;
    // The same where something is under way, which is not asked about.
    let silence_ms = u32::try_from(bounded(silence).as_millis()).unwrap_or(u32::MAX);
    Ok(sockopt::set_tcp_user_timeout(stream, silence_ms)?)
}
