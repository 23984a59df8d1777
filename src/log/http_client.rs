//! The daemon's HTTP client: one POST at a time to each server, over HTTP/1.1 with or without TLS. Connections stay open
//! for the next one.

use crate::log::cosign::{Reply, WitnessClient};
use axum::http::uri::{PathAndQuery, Scheme};
use axum::http::{Request, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// A witness answers with a few lines.
const REPLY_BYTES_MAX: usize = 64 * 1024;

type Sender = SendRequest<Full<Bytes>>;

/// A client. Whoever uses it bounds the time.
pub struct Client {
    tls: TlsConnector,
    /// Connections that nobody uses, by scheme, host and port.
    idle: Mutex<HashMap<String, Sender>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Trusts the certificates that the system trusts.
    pub fn new() -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let (_, unusable) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if unusable > 0 {
            tracing::debug!("{unusable} certificates of the system cannot be used");
        }
        let provider = Arc::new(crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config =
            config.map_err(|error| format!("TLS: {error}"))?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), idle: Mutex::default() })
    }

    fn take_idle(&self, place: &str) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).remove(place).filter(|sender| !sender.is_closed())
    }

    fn keep(&self, place: String, sender: Sender) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).insert(place, sender);
    }

    async fn connect(&self, target: &Target) -> Result<Sender, String> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await;
        let stream = stream.map_err(|error| format!("cannot connect to {}:{}: {error}", target.host, target.port))?;
        if !target.is_tls {
            return speak(stream).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| format!("{} is no host", target.host))?;
        let stream = self.tls.connect(name, stream).await;
        speak(stream.map_err(|error| format!("TLS with {} failed: {error}", target.host))?).await
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Sender, String> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection ended: {error}");
        }
    });
    Ok(sender)
}

struct Target {
    is_tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url} is no URL: {error}"))?;
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        if !is_tls && uri.scheme() != Some(&Scheme::HTTP) {
            return Err(format!("{url} does not begin with https:// or http://"));
        }
        let authority = uri.authority().ok_or_else(|| format!("{url} names no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        // A user and a password have no place in a request to a host.
        let authority = authority.as_str().rsplit('@').next().unwrap_or_default().to_owned();
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        Ok(Self { is_tls, host, port, authority, path })
    }

    fn place(&self) -> String {
        format!("{}:{}:{}", self.is_tls, self.host, self.port)
    }

    fn request(&self, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        Request::post(self.path.as_str())
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .header(header::USER_AGENT, concat!("ledgerd/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(|error| error.to_string())
    }
}

async fn send(sender: &mut Sender, request: Request<Full<Bytes>>) -> Result<Reply, String> {
    sender.ready().await.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.map(str::to_owned);
    let body = Limited::new(response.into_body(), REPLY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("the answer broke off: {error}"))?.to_bytes();
    Ok(Reply { status, content_type, body: String::from_utf8_lossy(&body).into_owned() })
}

impl WitnessClient for Client {
    async fn post(&self, url: &str, body: String) -> Result<Reply, String> {
        let target = Target::parse(url)?;
        let body = Bytes::from(body);
        if let Some(mut sender) = self.take_idle(&target.place()) {
            // The other side may have closed it in the meantime: then a new one is made, and the request is sent again.
            if let Ok(reply) = send(&mut sender, target.request(body.clone())?).await {
                self.keep(target.place(), sender);
                return Ok(reply);
            }
        }
        let mut sender = self.connect(&target).await?;
        let reply = send(&mut sender, target.request(body)?).await?;
        self.keep(target.place(), sender);
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    #[test]
    fn a_url_is_a_host_a_port_and_a_path() {
        let parsed = |url: &str| Target::parse(url).map(|it| (it.is_tls, it.host, it.port, it.authority, it.path));
        let target = |is_tls, host: &str, port, authority: &str, path: &str| {
            Ok((is_tls, host.to_owned(), port, authority.to_owned(), path.to_owned()))
        };
        assert_eq!(parsed("https://w.example/a"), target(true, "w.example", 443, "w.example", "/a"));
        assert_eq!(parsed("http://u:p@[::1]:81/"), target(false, "::1", 81, "[::1]:81", "/"));
        for url in ["", "w.example", "/a", "ftp://w.example/", "http://"] {
            assert!(parsed(url).is_err(), "{url}");
        }
    }

    /// Answers `answers` requests on each of its connections, then closes it.
    async fn server(answers: usize) -> (String, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/x", listener.local_addr().expect("bound"));
        let connections = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *counted.lock().expect("no panic") += 1;
                for _ in 0..answers {
                    let mut request = Vec::new();
                    while !request.ends_with(b"body") {
                        let mut bytes = [0; 1024];
                        let read = stream.read(&mut bytes).await.expect("a request");
                        assert_ne!(read, 0, "the client went away");
                        request.extend_from_slice(&bytes[..read]);
                    }
                    let answer =
                        "HTTP/1.1 409 Conflict\r\nContent-Type: text/x.tlog.size\r\nContent-Length: 2\r\n\r\n7\n";
                    stream.write_all(answer.as_bytes()).await.expect("the client listens");
                }
            }
        });
        (url, connections)
    }

    #[tokio::test]
    async fn a_connection_is_used_again_and_one_that_was_closed_is_made_anew() {
        let client = Client::new().expect("the system's certificates");
        let (url, connections) = server(2).await;
        for _ in 0..4 {
            let reply = client.post(&url, "body".to_owned()).await.expect("an answer");
            assert_eq!(
                (reply.status, reply.content_type.as_deref(), &*reply.body),
                (409, Some("text/x.tlog.size"), "7\n")
            );
        }
        assert_eq!(*connections.lock().expect("no panic"), 2);
        assert!(
            client.post("http://127.0.0.1:1/", String::new()).await.expect_err("nobody").contains("cannot connect")
        );
    }
}
