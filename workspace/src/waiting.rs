//! Between code that waits and code that may not.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use tokio::sync::oneshot;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future of this crate in a thread that may block. It needs no
/// runtime: for `Workspace`, its execs and tools in code that is not async.
///
/// What needs tokio, such as the methods of `AsyncReplica`, does not work in
/// it; use `AsyncReplica::blocking` there.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let workspace = cairn::block_on(cairn::Workspace::in_memory())?;
/// workspace.fs().blocking().mkdir("/src")?;
/// cairn::block_on(workspace.close())?;
/// # Ok(())
/// # }
/// ```
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Runs what blocks in a thread of its own. It runs to its end also when
/// nobody waits for it any more.
pub(crate) async fn elsewhere<T: Send + 'static>(
    f: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<T> {
    let (answer, answered) = oneshot::channel();
    std::thread::Builder::new()
        .name("cairn-work".into())
        .spawn(move || answer.send(f()))?;
    let panicked = |_| std::io::Error::other("a thread of the workspace panicked");
    answered.await.map_err(panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_waited_for() {
        assert_eq!(block_on(elsewhere(|| 7)).unwrap(), 7);
        let panicked = block_on(elsewhere(|| assert_eq!(1, 2)));
        assert!(panicked.is_err());
    }
}
