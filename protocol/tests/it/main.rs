//! Properties of the protocol's values and functions, seen from outside the crate.
//!
//! The modules are marked as tests for the sake of Clippy, which then lets their
//! helpers unwrap.

#[cfg(test)]
mod chunking;
#[cfg(test)]
mod codec;
#[cfg(test)]
mod content;
#[cfg(test)]
mod losses;
#[cfg(test)]
mod manifest;
#[cfg(test)]
mod merge;
#[cfg(test)]
mod names;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod session;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod spec;
#[cfg(test)]
mod text;
#[cfg(test)]
mod wire;
