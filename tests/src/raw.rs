//! Requests that a well-behaved client cannot make, byte by byte.

use std::time::Duration;

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

/// Sends `request` and reads until the answer is there. Returns the status and what was read.
pub async fn exchange(base_url: &str, request: &[u8]) -> (u16, String) {
    let mut stream = connect(base_url).await;
    // The host may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let text = answer(&mut stream, PATIENCE).await;
    (status(&text), text)
}

/// Sends `request` and reads what comes until the host ends the connection, or was silent for `silence`. Returns what was read,
/// and whether the connection has ended.
pub async fn converse(base_url: &str, request: &[u8], silence: Duration) -> (String, bool) {
    let mut stream = connect(base_url).await;
    // The host may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    let ended = loop {
        match tokio::time::timeout(silence, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break true,
            Err(_) => break false,
            Ok(Ok(n)) => read.extend_from_slice(&buffer[..n]),
        }
    };
    (String::from_utf8_lossy(&read).into_owned(), ended)
}

/// The statuses of all answers in what was read of a connection.
pub fn statuses(read: &str) -> Vec<u16> {
    read.split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| answer.get(..3).and_then(|text| text.parse().ok()).unwrap_or(0))
        .collect()
}

/// What is read until an answer is whole, the connection ends, or nothing came for `patience`.
pub async fn answer(stream: &mut TcpStream, patience: Duration) -> String {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    while !is_whole(&read) {
        match tokio::time::timeout(patience, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) | Err(_) => break,
            Ok(Ok(n)) => read.extend_from_slice(&buffer[..n]),
        }
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

fn is_whole(read: &[u8]) -> bool {
    let text = String::from_utf8_lossy(read).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.contains("\r\ntransfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    length.is_some_and(|length| body.len() >= length.trim().parse().unwrap_or(0))
}
