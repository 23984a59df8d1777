//! Publishes messages: through the client library like an agent's, or byte by byte like an enemy's.

use super::nats::{Login, NatsServer};
use super::{SOON, eventually};
use async_nats::HeaderMap;
use async_nats::jetstream::{self, message::PublishMessage};
use bytes::Bytes;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How many messages may be on their way to the server at once.
const UNACKNOWLEDGED_MAX: usize = 500;

/// A publisher that waits for the server's acknowledgement of each message. It speaks to the server itself, whatever
/// stands between that and the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    jetstream: jetstream::Context,
    port: u16,
    login: Option<Login>,
}

impl Publisher {
    pub(crate) async fn connect(server: &NatsServer) -> Self {
        let (port, login) = (server.port(), server.login().cloned());
        Self { jetstream: server.jetstream().await, port, login }
    }

    /// A publisher with the login of somebody who may publish as anybody.
    pub(crate) async fn connect_as(server: &NatsServer, login: Login) -> Self {
        let client = server.try_connect_as(&login).await.expect("the server lets this login in");
        Self { jetstream: jetstream::new(client), port: server.port(), login: Some(login) }
    }

    /// A publisher over a connection that is there already, of a server that lets anybody in. What is sent
    /// [raw](Self::publish_raw) goes to `port`.
    pub(crate) fn over(jetstream: jetstream::Context, port: u16) -> Self {
        Self { jetstream, port, login: None }
    }

    /// JetStream over the publisher's connection.
    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// Publishes, and returns the sequence that the server gave.
    pub(crate) async fn publish(&self, subject: &str, payload: impl Into<Bytes>) -> u64 {
        let message = PublishMessage::build().payload(payload.into());
        self.try_publish(subject, message).await.unwrap_or_else(|error| panic!("publishing to {subject}: {error}"))
    }

    /// Publishes with headers.
    pub(crate) async fn publish_with_headers(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: impl Into<Bytes>,
    ) -> u64 {
        let message = PublishMessage::build().headers(headers).payload(payload.into());
        self.try_publish(subject, message).await.unwrap_or_else(|error| panic!("publishing to {subject}: {error}"))
    }

    /// Publishes once. After an error nobody knows whether the stream has it.
    pub(crate) async fn try_publish(&self, subject: &str, message: PublishMessage) -> Result<u64, String> {
        let answer =
            self.jetstream.send_publish(subject.to_owned(), message).await.map_err(|error| error.to_string())?;
        answer.await.map(|ack| ack.sequence).map_err(|error| error.to_string())
    }

    /// Publishes many quickly, in this order.
    pub(crate) async fn publish_all(&self, messages: Vec<(String, Bytes)>) -> Vec<u64> {
        let mut sequences = Vec::with_capacity(messages.len());
        for chunk in messages.chunks(UNACKNOWLEDGED_MAX) {
            let mut answers = Vec::with_capacity(chunk.len());
            for (subject, payload) in chunk {
                let message = PublishMessage::build().payload(payload.clone());
                answers.push(self.jetstream.send_publish(subject.clone(), message).await.expect("the server runs"));
            }
            for answer in answers {
                sequences.push(answer.await.expect("the stream takes it").sequence);
            }
        }
        sequences
    }

    /// Publishes under this `Nats-Msg-Id` again and again, until the server acknowledges it: through any outage that
    /// ends within [`SOON`], and once, for the stream drops a second copy.
    pub(crate) async fn publish_through_outages(&self, subject: &str, id: &str, payload: impl Into<Bytes>) -> u64 {
        let message = PublishMessage::build().message_id(id).payload(payload.into());
        eventually("the server acknowledges a message", SOON, || self.try_publish(subject, message.clone())).await
    }

    /// Publishes with a header block of any bytes, which no client library would send: from `NATS/1.0` to the empty line.
    pub(crate) async fn publish_raw(&self, subject: &str, header_block: &[u8], payload: &[u8]) -> u64 {
        let published = self.send_raw(subject, header_block, payload);
        let answer = timeout(SOON, published).await.expect("the server answers").expect("the connection holds");
        let ack: Value = serde_json::from_slice(&answer).expect("JSON");
        ack["seq"].as_u64().unwrap_or_else(|| panic!("{subject} was refused: {ack}"))
    }

    async fn send_raw(&self, subject: &str, header_block: &[u8], payload: &[u8]) -> std::io::Result<Vec<u8>> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let inbox = format!("_INBOX.raw-publisher.{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut connect = json!({"verbose": false, "pedantic": false, "headers": true, "name": "the raw publisher"});
        if let Some(Login { user, password }) = &self.login {
            connect["user"] = user.as_str().into();
            connect["pass"] = password.as_str().into();
        }
        let (head, total) = (header_block.len(), header_block.len() + payload.len());
        let mut bytes =
            format!("CONNECT {connect}\r\nSUB {inbox} 1\r\nHPUB {subject} {inbox} {head} {total}\r\n").into_bytes();
        bytes.extend_from_slice(header_block);
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");

        let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?);
        stream.get_mut().write_all(&bytes).await?;
        loop {
            let mut line = String::new();
            assert_ne!(stream.read_line(&mut line).await?, 0, "the server closed the connection");
            assert!(!line.starts_with("-ERR"), "the server refused: {line}");
            if line.starts_with("MSG ") {
                let length = line.split_whitespace().last().and_then(|length| length.parse().ok());
                let mut answer = vec![0; length.expect("MSG ends with a length")];
                stream.read_exact(&mut answer).await?;
                return Ok(answer);
            }
        }
    }
}
