use super::*;
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

const LIMITS: Limits =
    Limits { connections_max: 8, connections_per_address_max: 8, headers_timeout: Duration::from_secs(10) };

async fn start(limits: Limits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let router = Router::new().route("/livez", get(async || "ok"));
    tokio::spawn(serve(listener, router, limits, CancellationToken::new()));
    address
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("it listens")
}

/// What is answered to a whole request, or how the connection ended.
async fn asked(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    let mut answer = [0; 1024];
    let count = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..count]).into_owned())
}

async fn has_ended(stream: &mut TcpStream) -> bool {
    let mut byte = [0; 1];
    matches!(stream.read(&mut byte).await, Ok(0) | Err(_))
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_byte_by_byte_holds_its_connection_for_a_while_only() {
    let mut slow = connect(start(LIMITS).await).await;
    let started = Instant::now();
    for byte in b"GET /livez HTTP/1.1\r\nX: ".iter().chain([b'x'; 100].iter()) {
        let _ = slow.write_all(&[*byte]).await;
        let mut answer = [0; 1];
        if let Ok(ended) = tokio::time::timeout(Duration::from_secs(1), slow.read(&mut answer)).await {
            assert!(matches!(ended, Ok(0) | Err(_)), "it is closed");
            return assert!(started.elapsed() <= Duration::from_secs(13), "{:?}", started.elapsed());
        }
    }
    panic!("it is still open after {:?}", started.elapsed());
}

#[tokio::test]
async fn the_next_connection_gets_the_place_of_the_one_that_waited_longest() {
    let address = start(LIMITS).await;
    let mut waiting = Vec::new();
    for _ in 0..LIMITS.connections_max {
        let mut stream = connect(address).await;
        assert!(asked(&mut stream).await.is_ok_and(|answer| answer.ends_with("ok")));
        waiting.push(stream);
    }
    let mut next = connect(address).await;
    assert!(asked(&mut next).await.is_ok_and(|answer| answer.ends_with("ok")));
    assert!(has_ended(&mut waiting[0]).await);
    for stream in &mut waiting[1..] {
        assert!(asked(stream).await.is_ok_and(|answer| answer.ends_with("ok")), "the others go on");
    }
}
