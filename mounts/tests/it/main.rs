//! Replicas mounted for real, used as programs use them.
//!
//! No process uses a mount that it serves itself: see `remote`.
//!
//! The modules are marked as tests for the sake of Clippy, which then lets their helpers unwrap.

#[cfg(test)]
mod append;
#[cfg(test)]
mod attributes;
#[cfg(test)]
mod basics;
#[cfg(test)]
mod child;
#[cfg(test)]
mod coherence;
#[cfg(test)]
mod common;
#[cfg(test)]
mod killed;
#[cfg(test)]
mod listing;
#[cfg(test)]
mod locks;
#[cfg(test)]
mod mapping;
#[cfg(test)]
mod mountpoints;
#[cfg(test)]
mod open_files;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod random;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod remote;
#[cfg(test)]
mod space;
