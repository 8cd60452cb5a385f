//! How many heaps the C library keeps. All `unsafe` of the program is here.
//!
//! It makes one for each thread that runs at the same time as others, up to eight
//! for each processor, and none gives what it has to another. The threads that do
//! the work of a session take turns, so each heap grew to what one batch takes: of
//! who pushes 100 000 files of 1 000 bytes that was 33 MB of 97.
#![allow(
    unsafe_code,
    reason = "a call without a safe wrapper; the block carries its proof"
)]

/// More would hardly be used at once, whatever the machine.
const MOST: usize = 8;

/// Bounds the heaps by the number of processors. To be called before there are
/// threads.
pub(crate) fn bound() {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let most = i32::try_from(processors.clamp(2, MOST)).unwrap_or(2);
    // SAFETY: it takes two numbers and sets one, under the C library's own lock.
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
    debug_assert_eq!(set, 1, "the C library knows M_ARENA_MAX");
}
