//! An HTTP listener that bounds the number and the duration of its connections, so that unknown clients cannot block
//! others.

mod places;

pub use crate::places::Limits;

use crate::places::{Place, Places};
use axum::Router;
use axum::extract::Request;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often those are looked for that take too long.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Connections that the kernel completes before they are accepted. With the usual 128, several hundred that come at once
/// make others wait a second, until their first packet is sent again.
const BACKLOG: u32 = 4096;

/// Takes the address; [`serve`] answers on it.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the last connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Answers with this router until told to stop.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) -> io::Result<()> {
    let service = router.layer(from_fn(noted)).into_make_service_with_connect_info::<Caller>();
    axum::serve(Limited::new(listener, limits), service).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Tells the connection's place that a request is complete, and then that it is answered.
async fn noted(ConnectInfo(caller): ConnectInfo<Caller>, request: Request, next: Next) -> Response {
    caller.0.is_answering();
    let response = next.run(request).await;
    if is_stream_of_events(&response) {
        caller.0.is_streaming();
    } else {
        caller.0.has_answered();
    }
    response
}

/// Whether an answer goes on for as long as somebody listens. Its sender must write something every few seconds.
fn is_stream_of_events(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Whoever is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Place>);

impl Caller {
    /// Its address; a proxy's, where there is one between.
    pub fn address(&self) -> IpAddr {
        self.0.address()
    }

    /// Its token is known: until it is answered, nobody takes its place.
    pub fn is_admitted(&self) {
        self.0.is_admitted();
    }
}

impl Connected<IncomingStream<'_, Limited>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Limited>) -> Self {
        Self(stream.io().place.clone())
    }
}

struct Limited {
    listener: TcpListener,
    places: Arc<Places>,
    looks: Interval,
}

impl Limited {
    fn new(listener: TcpListener, limits: Limits) -> Self {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { listener, places: Places::new(limits), looks }
    }
}

impl Listener for Limited {
    type Io = Watched;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Watched, SocketAddr) {
        loop {
            tokio::select! {
                // axum's own listener waits where the process has no file handles left.
                (stream, address) = Listener::accept(&mut self.listener) => {
                    let (place, ended) = self.places.take(address.ip());
                    return (Watched { stream, ended: Some(ended), place: Arc::new(place) }, address);
                }
                _ = self.looks.tick() => self.places.end_the_slow(),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when its place is taken.
#[derive(Debug)]
struct Watched {
    stream: TcpStream,
    /// `None` once it has.
    ended: Option<oneshot::Receiver<()>>,
    place: Arc<Place>,
}

impl Watched {
    /// `Err` where the connection has lost its place.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let has_place = self.ended.as_mut().is_some_and(|ended| Pin::new(ended).poll(context).is_pending());
        if has_place {
            return Ok(());
        }
        self.ended = None;
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        let count = into.filled().len() - before;
        if count > 0 {
            self.place.has_read(count)?;
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_ready() {
            self.place.has_written();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.place.has_flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        if written.is_ready() {
            self.place.has_written();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
#[path = "lib_tests.rs"]
mod tests;
