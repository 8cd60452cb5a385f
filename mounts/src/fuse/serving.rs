//! Which threads are serving a request of a mount just now.

use std::cell::Cell;

thread_local! {
    static SERVING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is serving a request.
pub(crate) fn here() -> bool {
    SERVING.get()
}

/// Marks the calling thread as serving a request for as long as this lives.
#[derive(Debug)]
pub(crate) struct Serving(bool);

impl Serving {
    /// Begins.
    pub(crate) fn begin() -> Self {
        Self(SERVING.replace(true))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        SERVING.set(self.0);
    }
}
