//! The sum of what several sessions did.

use cairn_protocol::session::Counters;

/// Adds what another session did. What it still wants is no part of a sum.
pub(crate) fn add(sum: &mut Counters, more: &Counters) {
    sum.frames_sent += more.frames_sent;
    sum.bytes_sent += more.bytes_sent;
    sum.frames_received += more.frames_received;
    sum.bytes_received += more.bytes_received;
    sum.round_trips += more.round_trips;
    sum.changes += more.changes;
    sum.chunks_sent += more.chunks_sent;
    sum.chunks_received += more.chunks_received;
    sum.chunks_wanted = more.chunks_wanted;
    sum.batches += more.batches;
}
