//! HTTP by hand: one request, one answer of any bytes, and the connection ends.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    /// By name in small letters.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl HttpAnswer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks a server on this machine. `Err` when nobody answers, or not to the end.
pub(crate) async fn ask(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<HttpAnswer, String> {
    ask_from(Ipv4Addr::LOCALHOST, port, method, path, headers, body).await
}

/// Asks from another address of this machine.
pub(crate) async fn ask_from(
    from: Ipv4Addr,
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<HttpAnswer, String> {
    let exchange = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let mut stream: TcpStream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
        // 1.0, so that the body comes in one piece.
        let mut head = format!("{method} {path} HTTP/1.0\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("Host: 127.0.0.1\r\n");
        }
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(ANSWER_MAX, exchange).await.map_err(|_| format!("no answer within {ANSWER_MAX:?}"))?;
    parse(&answer.map_err(|error| error.to_string())?).ok_or_else(|| "half an answer".to_owned())
}

/// Asks for a page that is there.
pub(crate) async fn get(port: u16, path: &str) -> HttpAnswer {
    ask(port, "GET", path, &[], b"").await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

fn parse(answer: &[u8]) -> Option<HttpAnswer> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let mut lines = std::str::from_utf8(&answer[..end]).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let pairs = lines.filter_map(|line| line.split_once(':'));
    let headers: BTreeMap<String, String> =
        pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let body = answer[end + 4..].to_vec();
    let whole = headers.get("content-length").is_none_or(|length| length.parse() == Ok(body.len()));
    whole.then_some(HttpAnswer { status, headers, body })
}
