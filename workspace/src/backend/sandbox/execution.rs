//! An exec in a sandbox, as callers of the workspace see it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cairn_protocol::wire::{Blob, Text};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;

use super::bracket::Bracket;
use crate::exec::{
    Bounds, Boxed, Event, EventKind, ExecError, ExecId, Execution, Exit, Keep, Result, Seq, Signal,
    Synced, Terminal,
};
use crate::remote::{Call, PIECE_MAX, Reply};

/// An exec there.
#[derive(Debug)]
pub(super) struct RemoteExecution {
    inner: Arc<Inner>,
    handle: Handle,
}

#[derive(Debug)]
struct Inner {
    bracket: Arc<Bracket>,
    id: ExecId,
    handle: Handle,
    /// What was written to its input so far, in bytes.
    written: Mutex<u64>,
    keep: Keep,
    /// Its end is known, and what it changed was brought here or noted.
    pulled: OnceCell<()>,
}

impl RemoteExecution {
    pub(super) fn new(
        bracket: Arc<Bracket>,
        handle: Handle,
        id: ExecId,
        written: u64,
        keep: Keep,
    ) -> Arc<Self> {
        let inner = Arc::new(Inner {
            bracket,
            id,
            handle: handle.clone(),
            written: Mutex::new(written),
            keep,
            pulled: OnceCell::new(),
        });
        Arc::new(Self { inner, handle })
    }

    /// Writes an input that was too long to be sent with the command, and ends it.
    pub(super) fn feed(&self, bytes: Bytes) {
        let inner = Arc::clone(&self.inner);
        self.handle.spawn(async move {
            // A program that does not read it all is no error.
            let _ = inner.write(bytes).await;
            let _ = inner.close_input().await;
        });
    }

    fn ask<T, F>(&self, ask: impl FnOnce(Arc<Inner>) -> F) -> Boxed<'_, Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = self.handle.spawn(ask(Arc::clone(&self.inner)));
        Box::pin(Asking(task))
    }
}

/// A task that ends when nobody waits for it any more.
struct Asking<T>(JoinHandle<Result<T>>);

impl<T> Future for Asking<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let polled = Pin::new(&mut self.0).poll(context);
        polled.map(|done| done.unwrap_or(Err(ExecError::Closed)))
    }
}

impl<T> Drop for Asking<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Inner {
    fn id(&self) -> Text<128> {
        Text::cut(self.id.as_str())
    }

    async fn call(&self, call: Call) -> Result<Reply> {
        self.bracket.call(&self.id, call).await
    }

    async fn read(&self, from: Seq, bytes_max: usize) -> Result<Vec<Event>> {
        let call = Call::Read {
            id: self.id(),
            from,
            bytes_max: u32::try_from(bytes_max).unwrap_or(u32::MAX),
        };
        let reply = self.call(call).await;
        let Reply::Events(events) = reply.map_err(|error| Self::evicted(from, error))? else {
            return Err(ExecError::Closed);
        };
        let events: Vec<Event> = events
            .into_vec()
            .into_iter()
            .map(crate::remote::EventWire::into_event)
            .collect();
        let ends = |event: &Event| matches!(event.kind, EventKind::Exit(_));
        if events.last().is_some_and(ends) {
            self.pulled().await;
        }
        Ok(events)
    }

    fn evicted(wanted: Seq, error: ExecError) -> ExecError {
        match error {
            ExecError::Evicted { id, oldest, .. } => ExecError::Evicted { id, wanted, oldest },
            error => error,
        }
    }

    /// Brings what it changed here before its end is told.
    async fn pulled(&self) {
        let pull = || self.bracket.pull(&self.handle, &self.id);
        self.pulled.get_or_init(pull).await;
    }

    async fn exit(&self) -> Result<Exit> {
        match self.call(Call::Exit { id: self.id() }).await? {
            Reply::Exit(exit) => {
                self.pulled().await;
                Ok(exit)
            }
            _ => Err(ExecError::Closed),
        }
    }

    async fn write(&self, mut bytes: Bytes) -> Result<()> {
        let mut written = self.written.lock().await;
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE_MAX));
            let len = piece.len() as u64;
            let call = Call::Write {
                id: self.id(),
                at: *written,
                // It was cut to fit.
                bytes: Blob::try_from(piece).unwrap_or_default(),
            };
            self.call(call).await?;
            *written += len;
        }
        Ok(())
    }

    async fn close_input(&self) -> Result<()> {
        self.call(Call::CloseInput { id: self.id() })
            .await
            .map(drop)
    }
}

impl Execution for RemoteExecution {
    fn id(&self) -> &ExecId {
        &self.inner.id
    }

    fn read(&self, from: Seq, bytes_max: usize) -> Boxed<'_, Result<Vec<Event>>> {
        self.ask(|inner| async move { inner.read(from, bytes_max).await })
    }

    fn bounds(&self) -> Boxed<'_, Result<Bounds>> {
        self.ask(|inner| async move {
            match inner.call(Call::Bounds { id: inner.id() }).await? {
                Reply::Bounds { oldest, next } => Ok(Bounds { oldest, next }),
                _ => Err(ExecError::Closed),
            }
        })
    }

    fn exit(&self) -> Boxed<'_, Result<Exit>> {
        self.ask(|inner| async move { inner.exit().await })
    }

    fn kill(&self, signal: Signal) -> Boxed<'_, Result<()>> {
        self.ask(move |inner| async move { inner.bracket.kill(&inner.id, signal).await })
    }

    fn write(&self, bytes: Bytes) -> Boxed<'_, Result<()>> {
        self.ask(|inner| async move { inner.write(bytes).await })
    }

    fn close_input(&self) -> Boxed<'_, Result<()>> {
        self.ask(|inner| async move { inner.close_input().await })
    }

    fn resize(&self, size: Terminal) -> Boxed<'_, Result<()>> {
        self.ask(move |inner| async move {
            let call = Call::Resize {
                id: inner.id(),
                rows: size.rows,
                columns: size.columns,
            };
            inner.call(call).await.map(drop)
        })
    }

    fn keep(&self) -> Keep {
        self.inner.keep
    }

    fn synced(&self) -> Synced {
        if self.inner.pulled.initialized() && !self.inner.bracket.is_pending(&self.inner.id) {
            Synced::Complete
        } else {
            Synced::Pending
        }
    }
}
