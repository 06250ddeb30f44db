//! Requests that a well-behaved client cannot make, byte by byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::upstream::PATIENCE;

/// The host and port of a base URL.
pub fn authority(base_url: &str) -> &str {
    base_url.strip_prefix("http://").expect("cases speak plain HTTP").trim_end_matches('/')
}

/// A connection with the smallest receive buffer that the system grants.
pub async fn connect(base_url: &str) -> TcpStream {
    let address = tokio::net::lookup_host(authority(base_url)).await.unwrap().next().unwrap();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(address).await.unwrap()
}

/// The head of a request, with the headers that are given and no others but `Host`.
pub fn head(base_url: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", authority(base_url));
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head + "\r\n"
}

/// Sends `request` and reads until the answer's head is there. Returns the status and what was read.
pub async fn exchange(base_url: &str, request: &[u8]) -> (u16, String) {
    let mut stream = connect(base_url).await;
    // The host may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut read = Vec::new();
    let done = tokio::time::timeout(PATIENCE, async {
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => read.extend_from_slice(&buffer[..n]),
            }
            if is_whole(&read) {
                return;
            }
        }
    });
    assert!(done.await.is_ok(), "no answer: {:?}", String::from_utf8_lossy(&read));
    let text = String::from_utf8_lossy(&read).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status in {text:?}")), text)
}

fn is_whole(read: &[u8]) -> bool {
    let text = String::from_utf8_lossy(read).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.is_some_and(|length| body.len() >= length.trim().parse().unwrap_or(0))
}
