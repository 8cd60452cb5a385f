//! The replica in a tokio runtime: `cargo test -p cairn-engine --features async`.
#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cairn_engine::{
    Allocate, AsyncReplica, CursorError, FsError, GrepOptions, Ino, NewNode, NodeKind, OpenError,
    Options, RenameMode, Replica, SetAttr, SetTime, Timestamp,
};
use cairn_protocol::Entry;
use tokio::task::JoinError;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);

async fn memory() -> AsyncReplica {
    AsyncReplica::in_memory().await.expect("a replica")
}

/// Polls a future once: its operation begins, or waits for a thread.
async fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Runs a test in a runtime whose only thread for blocking work is busy until
/// the test lets it go.
fn with_busy_pool(test: impl AsyncFnOnce(AsyncReplica, Gate)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    let replica = Replica::in_memory().expect("a replica");
    replica.write_file("/one", b"1").expect("a file");
    runtime.block_on(async {
        let (begin, gate) = mpsc::channel();
        tokio::task::spawn_blocking(move || gate.recv().is_ok());
        test(replica.into(), begin).await;
    });
}

type Gate = mpsc::Sender<()>;

fn join_error(error: &FsError) -> &JoinError {
    let FsError::Io { source, .. } = error else {
        unreachable!("{error:?}");
    };
    let inner = source.get_ref().and_then(|e| e.downcast_ref());
    inner.expect("an error of tokio")
}

#[tokio::test]
async fn files_and_directories_by_path() {
    let replica = memory().await;
    replica.mkdir("/a").await.unwrap();
    replica.mkdir_all(b"/a/b/c").await.unwrap();
    replica.write_file("/a/f", "one").await.unwrap();
    replica.write_range("/a/f", 3, " two").await.unwrap();
    assert_eq!(replica.append_file("/a/f", vec![b'!']).await.unwrap(), 7);
    assert_eq!(replica.read_file("/a/f").await.unwrap(), b"one two!");
    assert_eq!(replica.read_range("/a/f", 4, 3).await.unwrap(), b"two");
    replica.truncate_path("/a/f", 3).await.unwrap();
    replica.replace_file("/a/f", b"new").await.unwrap();
    let version = replica.version("/a/f").await.unwrap();
    replica.write_if("/a/f", version, "newer").await.unwrap();
    let late = replica.write_if("/a/f", version, "late").await;
    assert!(matches!(late, Err(FsError::VersionMismatch { .. })));

    replica.copy_file("/a/f", "/a/copy").await.unwrap();
    replica.hard_link("/a/f", "/a/link").await.unwrap();
    replica.symlink_path("f", "/a/sym").await.unwrap();
    assert_eq!(replica.read_link_path("/a/sym").await.unwrap(), b"f");
    assert_eq!(replica.stat("/a/sym").await.unwrap().nlink, 2);
    let link = replica.lstat("/a/sym").await.unwrap();
    assert_eq!(link.kind, NodeKind::Symlink);

    replica.rename_path("/a/copy", "/a/b/moved").await.unwrap();
    assert!(!replica.exists("/a/copy").await.unwrap());
    let found = replica.find("/a", "**/m*").await.unwrap();
    assert_eq!(found[0].path, b"/a/b/moved");
    let lines = replica.grep("/", "newer", GrepOptions::default()).await;
    assert_eq!(lines.unwrap().len(), 3);

    replica.remove("/a/link").await.unwrap();
    let full = replica.remove("/a").await;
    assert!(matches!(full, Err(FsError::NotEmpty(_))));
    replica.remove_all("/a").await.unwrap();
    assert_eq!(replica.list("/", 0, 10).await.unwrap(), []);
}

#[tokio::test]
async fn attributes_by_path() {
    let replica = memory().await;
    replica.write_file("/f", "").await.unwrap();
    assert_eq!(replica.chmod("/f", 0o600).await.unwrap().perm, 0o600);
    let owned = replica.chown("/f", Some(1), Some(2)).await.unwrap();
    assert_eq!((owned.uid, owned.gid), (1, 2));
    let then = SetTime::At(Timestamp::EPOCH);
    let old = replica.set_times("/f", None, Some(then)).await.unwrap();
    assert_eq!(old.mtime, Timestamp::EPOCH);
    let set = SetAttr {
        size: Some(10),
        ..SetAttr::default()
    };
    assert_eq!(replica.set_attr_path("/f", set).await.unwrap().size, 10);

    replica.set_xattr_path("/f", "user.k", "v").await.unwrap();
    assert_eq!(&replica.xattr_path("/f", "user.k").await.unwrap()[..], b"v");
    let names = replica.list_xattrs_path("/f").await.unwrap();
    assert_eq!(names.len(), 1);
    replica.remove_xattr_path("/f", "user.k").await.unwrap();
    let gone = replica.xattr_path("/f", "user.k").await;
    assert!(matches!(gone, Err(FsError::NoXattr)));
}

#[tokio::test]
async fn operations_by_inode() {
    let replica = memory().await;
    let new = |kind| NewNode {
        kind,
        perm: 0o700,
        uid: 0,
        gid: 0,
        rdev: 0,
    };
    let root = Ino::ROOT;
    let file = replica.make(root, "f", new(NodeKind::File)).await.unwrap();
    let dir = replica.make(root, "d", new(NodeKind::Dir)).await.unwrap();
    replica.write_at(file.ino, 1, "bc").await.unwrap();
    assert_eq!(replica.append(file.ino, "d").await.unwrap(), 3);
    assert_eq!(replica.read_at(file.ino, 1, 9).await.unwrap(), b"bcd");
    replica.link(file.ino, dir.ino, "hard").await.unwrap();
    let link = replica.symlink(root, "s", "f", 0, 0).await.unwrap();
    assert_eq!(&replica.read_link(link.ino).await.unwrap()[..], b"f");
    let copy = replica.make(root, "c", new(NodeKind::File)).await.unwrap();
    let copied = replica.copy_range(file.ino, 0, copy.ino, 0, 4).await;
    assert_eq!(copied.unwrap(), 4);
    let set = SetAttr {
        perm: Some(0o644),
        ..SetAttr::default()
    };
    assert_eq!(replica.set_attr(copy.ino, set).await.unwrap().perm, 0o644);
    replica
        .rename(root, "c", dir.ino, "c", RenameMode::NoReplace)
        .await
        .unwrap();
    assert_eq!(replica.lookup(dir.ino, "c").await.unwrap().ino, copy.ino);
    replica.fsync(copy.ino).await.unwrap();
    replica.unlink(dir.ino, "hard").await.unwrap();
    replica.unlink(dir.ino, "c").await.unwrap();
    replica.rmdir(root, "d").await.unwrap();
    assert_eq!(replica.attr(file.ino).await.unwrap().nlink, 1);

    let punch = move |r: &Replica| r.allocate(file.ino, 0, 4, Allocate::PunchHole);
    replica.run(punch).await.unwrap();
    assert_eq!(replica.read_at(file.ino, 0, 9).await.unwrap(), [0; 4]);
}

#[tokio::test]
async fn what_was_closed_can_be_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let replica = AsyncReplica::open(dir.path(), Options::default()).await;
    let replica = replica.unwrap();
    replica.write_file("/kept", "content").await.unwrap();
    let second = AsyncReplica::open(dir.path(), Options::default()).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    replica.close().await.unwrap();

    let replica = AsyncReplica::open(dir.path(), Options::default()).await;
    let replica = replica.unwrap();
    assert_eq!(replica.read_file("/kept").await.unwrap(), b"content");
    let report = replica.check(|_, _| ()).await.unwrap();
    assert_eq!(report.problems, []);
    replica.gc().await.unwrap();
    assert_eq!(replica.usage().await.unwrap().nodes, 2);
    assert_eq!(replica.stat_fs().await.unwrap().nodes, 2);

    // Another handle keeps it open.
    let other = replica.clone();
    replica.close().await.unwrap();
    assert!(other.exists("/kept").await.unwrap());
}

#[tokio::test]
async fn a_directory_of_many_pages() {
    let replica = memory().await;
    let made = replica.run(|r| {
        for i in 0..2_000 {
            r.write_file(format!("/{i}"), b"")?;
        }
        Ok(())
    });
    made.await.unwrap();
    let mut entries = replica.read_dir("/").await.unwrap();
    let mut names = BTreeSet::new();
    while let Some(entry) = entries.next_entry().await.unwrap() {
        assert!(names.insert(entry.name));
    }
    assert_eq!(names.len(), 2_000);
    assert!(entries.next_entry().await.unwrap().is_none());
    let file = replica.read_dir("/7").await;
    assert!(matches!(file, Err(FsError::NotDir(_))));
}

#[tokio::test]
async fn changes_come_in_pages_of_one_cut() {
    let replica = memory().await;
    let start = replica.cursor().await.unwrap();
    for i in 0..100 {
        replica.write_file(format!("/{i}"), "x").await.unwrap();
    }
    let mut pages = replica.changes_since(Some(start), 30);
    let first = pages.next_page().await.unwrap().unwrap();
    assert!(first.more);
    replica.write_file("/late", "x").await.unwrap();

    let mut names = BTreeSet::new();
    let mut page = first;
    let next = loop {
        for change in page.changes {
            if let Entry::Name { name, .. } = change.entry {
                assert!(names.insert(name), "twice");
            }
        }
        if !page.more {
            break page.next;
        }
        page = pages.next_page().await.unwrap().unwrap();
    };
    assert!(pages.next_page().await.unwrap().is_none());
    assert_eq!(names.len(), 100);

    let mut pages = replica.changes_since(Some(next), 30);
    let rest = pages.next_page().await.unwrap().unwrap().changes;
    let late = |e: &Entry| matches!(e, Entry::Name { name, .. } if name.as_bytes() == b"late");
    assert!(rest.iter().any(|c| late(&c.entry)));

    let other = memory().await;
    let wrong = other.changes_since(Some(next), 30).next_page().await;
    assert!(matches!(wrong, Err(CursorError::Epoch { .. })));
}

#[tokio::test]
async fn an_operation_whose_future_is_dropped_completes() {
    let replica = memory().await;
    let (begin, gate) = mpsc::channel();
    let (done, over) = mpsc::channel();
    let slow = replica.run(move |r| {
        gate.recv().unwrap();
        r.write_file("/slow", b"written")?;
        done.send(()).unwrap();
        Ok(())
    });
    assert!(poll_once(slow).await.is_pending());
    begin.send(()).unwrap();
    over.recv_timeout(PATIENCE).unwrap();
    assert_eq!(replica.read_file("/slow").await.unwrap(), b"written");
}

#[tokio::test]
async fn a_future_that_is_never_polled_does_nothing() {
    let replica = memory().await;
    drop(replica.write_file("/never", ""));
    assert!(!replica.exists("/never").await.unwrap());
}

#[tokio::test]
async fn a_timeout_gives_the_result_up_and_not_the_operation() {
    let replica = memory().await;
    let (begin, gate) = mpsc::channel::<()>();
    let slow = replica.run(move |r| {
        gate.recv().unwrap();
        r.mkdir("/made").map(drop)
    });
    let early = tokio::time::timeout(Duration::from_millis(1), slow).await;
    assert!(early.is_err());
    begin.send(()).unwrap();
    let made = async {
        while !replica.exists("/made").await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, made).await.unwrap();
}

#[test]
fn a_listing_that_was_interrupted_goes_on() {
    with_busy_pool(async |replica, begin| {
        begin.send(()).unwrap();
        let mut entries = replica.read_dir("/").await.unwrap();
        let (begin, gate) = mpsc::channel();
        tokio::task::spawn_blocking(move || gate.recv().is_ok());
        assert!(poll_once(entries.next_entry()).await.is_pending());
        begin.send(()).unwrap();
        let entry = entries.next_entry().await.unwrap().unwrap();
        assert_eq!(entry.name, b"one");
        assert!(entries.next_entry().await.unwrap().is_none());
    });
}

#[test]
fn a_page_of_changes_that_was_interrupted_is_read_again() {
    with_busy_pool(async |replica, begin| {
        let mut pages = replica.changes_since(None, 1_000);
        assert!(poll_once(pages.next_page()).await.is_pending());
        begin.send(()).unwrap();
        let page = pages.next_page().await.unwrap().unwrap();
        assert!(!page.changes.is_empty());
        assert!(pages.next_page().await.unwrap().is_none());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_share_a_replica() {
    let replica = memory().await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let replica = replica.clone();
        tasks.spawn(async move {
            let own = format!("/{task}");
            replica.mkdir(&own).await?;
            for i in 0..50 {
                replica
                    .write_file(format!("{own}/{i}"), own.clone())
                    .await?;
                replica
                    .append_file("/log", format!("{task:02} {i:02}\n"))
                    .await?;
            }
            Ok::<_, FsError>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    let log = replica.read_file("/log").await.unwrap();
    let lines: BTreeSet<&[u8]> = log.chunks(6).collect();
    assert_eq!((log.len(), lines.len()), (16 * 50 * 6, 16 * 50));
    assert_eq!(replica.find("/", "*/*").await.unwrap().len(), 16 * 50);
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_replica_goes_on() {
    let replica = memory().await;
    let error = replica.run(|_| -> Result<(), _> { panic!("on purpose") });
    let error = error.await.unwrap_err();
    assert!(join_error(&error).is_panic());
    assert_eq!(
        error.to_string(),
        "the disk under the replica failed: an operation panicked"
    );
    replica.mkdir("/after").await.unwrap();
}

#[test]
fn without_a_runtime_an_operation_fails() {
    let replica: AsyncReplica = Replica::in_memory().unwrap().into();
    let mut future = std::pin::pin!(replica.mkdir("/d"));
    let polled = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Err(FsError::Io { .. }))));
    assert!(!replica.blocking().exists("/d").unwrap());
}

#[test]
fn in_a_runtime_that_shut_down_an_operation_fails() {
    let replica: AsyncReplica = Replica::in_memory().unwrap().into();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _inside = handle.enter();
    let mut future = std::pin::pin!(replica.mkdir("/d"));
    let polled = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(error)) = polled else {
        unreachable!("{polled:?}");
    };
    assert!(join_error(&error).is_cancelled());
    assert!(!replica.blocking().exists("/d").unwrap());
}
