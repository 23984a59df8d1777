//! A connection that speaks NATS byte by byte, so that a test sees each refusal, and no library is polite in between.

use super::SOON;
use super::nats::Login;
use serde_json::json;
use std::fmt::Write;
use std::net::Ipv4Addr;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// `-ERR`, as it is worded.
    Refusal(String),
    /// A message: its subject, headers and payload as they came.
    Message { subject: String, text: String },
}

impl Heard {
    pub(crate) fn is_violation(&self) -> bool {
        matches!(self, Heard::Refusal(text) if text.contains("Permissions Violation"))
    }

    /// The answer to a request that nobody takes.
    pub(crate) fn is_no_responders(&self) -> bool {
        matches!(self, Heard::Message { text, .. } if text.starts_with("NATS/1.0 503"))
    }
}

enum Line {
    Heard(Heard),
    Pong,
    Other,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct RawNats {
    stream: BufReader<TcpStream>,
    subscriptions: u32,
}

impl RawNats {
    /// Connects as this user.
    pub(crate) async fn connect(port: u16, Login { user, password }: &Login) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("the server runs");
        stream.set_nodelay(true).expect("a TCP connection");
        let mut raw = Self { stream: BufReader::new(stream), subscriptions: 0 };
        let connect = json!({
            "verbose": false, "pedantic": false, "headers": true, "no_responders": true, "user": user, "pass": password,
        });
        raw.send(&format!("CONNECT {connect}\r\n")).await;
        assert_eq!(raw.heard().await, [], "{user} is let in");
        raw
    }

    pub(crate) async fn subscribe(&mut self, subject: &str) {
        self.subscriptions += 1;
        let number = self.subscriptions;
        self.send(&format!("SUB {subject} {number}\r\n")).await;
    }

    /// Publishes with these header lines, where there are any.
    pub(crate) async fn publish(&mut self, subject: &str, reply: &str, headers: &[&str], payload: &str) {
        let mut text = String::new();
        let (bytes, head) =
            (payload.len(), headers.iter().fold("NATS/1.0\r\n".to_owned(), |it, line| it + line + "\r\n"));
        if headers.is_empty() {
            write!(text, "PUB {subject} {reply} {bytes}\r\n{payload}\r\n").expect("a string");
        } else {
            let head = head + "\r\n";
            let (before, all) = (head.len(), head.len() + bytes);
            write!(text, "HPUB {subject} {reply} {before} {all}\r\n{head}{payload}\r\n").expect("a string");
        }
        self.send(&text).await;
    }

    /// Publishes, and waits for the next thing that the server says.
    pub(crate) async fn request(&mut self, subject: &str, reply: &str, headers: &[&str], payload: &str) -> Heard {
        self.publish(subject, reply, headers, payload).await;
        self.next().await
    }

    /// The next thing that the server says.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            if let Line::Heard(heard) = self.read().await {
                return heard;
            }
        }
    }

    /// Everything that the server has said up to its answer to a ping.
    pub(crate) async fn heard(&mut self) -> Vec<Heard> {
        self.send("PING\r\n").await;
        let mut all = Vec::new();
        loop {
            match self.read().await {
                Line::Pong => return all,
                Line::Heard(heard) => all.push(heard),
                Line::Other => {}
            }
        }
    }

    async fn read(&mut self) -> Line {
        let line = self.line().await;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "PONG" => Line::Pong,
            "-ERR" => Line::Heard(Heard::Refusal(line.trim().to_owned())),
            "MSG" | "HMSG" => {
                let length: usize = words.last().and_then(|it| it.parse().ok()).expect("it ends with a length");
                let mut bytes = vec![0; length + 2];
                let read = timeout(SOON, self.stream.read_exact(&mut bytes)).await.expect("the rest follows");
                read.expect("the connection holds");
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                Line::Heard(Heard::Message { subject: words[1].to_owned(), text })
            }
            "PING" => {
                self.send("PONG\r\n").await;
                Line::Other
            }
            _ => Line::Other,
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(SOON, self.stream.read_line(&mut line)).await.expect("the server answers");
        assert_ne!(read.expect("the connection holds"), 0, "the server closed the connection");
        line
    }

    async fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).await.expect("the connection holds");
    }
}
