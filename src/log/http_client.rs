//! The HTTP client that asks witnesses. Connections stay open for the next request.

use crate::http::client::{client, with_sources};
use crate::log::cosign::{Reply, WitnessClient};
use reqwest::header::CONTENT_TYPE;

/// A witness answers with a few lines.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// Its caller bounds the time.
#[derive(Debug)]
pub struct Client(reqwest::Client);

impl Client {
    pub fn new() -> Result<Self, String> {
        client().map(Self)
    }
}

impl WitnessClient for Client {
    async fn post(&self, url: &str, body: String) -> Result<Reply, String> {
        let request = self.0.post(url).header(CONTENT_TYPE, "text/plain; charset=utf-8").body(body);
        let mut response = request.send().await.map_err(|error| with_sources(&error))?;
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| with_sources(&error))? {
            if body.len() + chunk.len() > REPLY_BYTES_MAX {
                return Err(format!("the answer has more than {REPLY_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply {
            status: response.status().as_u16(),
            content_type,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Answers `answers` requests on each of its connections, then closes it.
    async fn server(answers: usize) -> (String, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/x", listener.local_addr().expect("bound"));
        let connections = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                *counted.lock() += 1;
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
        assert_eq!(*connections.lock(), 2);
        assert!(
            client.post("http://127.0.0.1:1/", String::new()).await.expect_err("nobody").contains("Connection refused")
        );
    }
}
