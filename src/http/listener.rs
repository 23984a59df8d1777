//! How many may connect, and how long may they say nothing? Whoever holds connections open without a word must not use up the
//! file handles that the ledger itself needs.

use axum::serve::Listener;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Open connections; the next ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Prometheus and probes come every few seconds; a connection that is idle for longer is closed.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// From the first byte of a request to the first of its answer; no answer takes as long. Whoever sends a byte now and then is
/// never silent.
const REQUEST_TIME_MAX: Duration = Duration::from_mins(1);

/// A listener with these limits.
#[derive(Debug)]
pub(super) struct Limited {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Limited {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl Listener for Limited {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        // axum's own listener waits where the process has no file handles left.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let silence = Box::pin(sleep(SILENCE_MAX));
        (Watched { stream, silence, request: None, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when nothing moves on it for too long.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    /// While something was read and nothing answered: the end of the time for it.
    request: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Watched {
    fn watch<T>(&mut self, context: &mut Context<'_>, moved: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if self.request.as_mut().is_some_and(|request| request.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if moved.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
            return moved;
        }
        self.silence.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(context, into);
        if moved.is_ready() {
            self.request.get_or_insert_with(|| Box::pin(sleep(REQUEST_TIME_MAX)));
        }
        self.watch(context, moved)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(context, bytes);
        if moved.is_ready() {
            self.request = None;
        }
        self.watch(context, moved)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        if moved.is_ready() {
            self.request = None;
        }
        self.watch(context, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn a_request_that_comes_byte_by_byte_holds_its_connection_for_a_while_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(Limited::new(listener), Router::new()).await });
        let mut slow = TcpStream::connect(address).await.expect("it listens");
        let started = Instant::now();
        for byte in b"GET /livez HTTP/1.1\r\nX: ".iter().chain([b'x'; 100].iter()) {
            let _ = slow.write_all(&[*byte]).await;
            let mut answer = [0; 1];
            if let Ok(ended) = tokio::time::timeout(SILENCE_MAX / 2, slow.read(&mut answer)).await {
                assert!(matches!(ended, Ok(0) | Err(_)), "it is closed");
                return assert!(started.elapsed() <= REQUEST_TIME_MAX * 2, "{:?}", started.elapsed());
            }
        }
        panic!("it is still open after {:?}", started.elapsed());
    }
}
