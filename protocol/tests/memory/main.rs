//! The memory of a session, whatever its peer does (I13). A process of its own:
//! what it measures is that of the whole process.

#[cfg(test)]
mod bounds;
