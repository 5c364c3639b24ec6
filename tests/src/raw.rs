//! A client that sends what no library would.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Publishes with these bytes for headers; returns when the server has taken it.
pub async fn publish_raw(nats_url: &str, subject: &str, headers: &[u8], body: &[u8]) {
    let address = nats_url.trim_start_matches("nats://");
    let exchange = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let all = headers.len() + body.len();
        let head = format!(
            "CONNECT {{\"headers\":true,\"verbose\":false}}\r\nHPUB {subject} {} {all}\r\n",
            headers.len()
        );
        let bytes = [head.as_bytes(), headers, body, b"\r\nPING\r\n"].concat();
        socket.write_all(&bytes).await.unwrap();
        let mut lines = BufReader::new(socket).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line == "PONG" {
                return;
            }
        }
        panic!("the server closes the connection");
    };
    tokio::time::timeout(Duration::from_secs(10), exchange).await.unwrap();
}
