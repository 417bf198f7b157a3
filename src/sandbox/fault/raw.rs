//! The plays that leave HTTP behind: hyper hands the socket over, and the bytes are ours.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::Wire;

/// How long a play keeps a connection that its peer does not close.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the connection does instead of answering.
#[derive(Debug)]
pub(in crate::sandbox) struct Plan {
    wire: Wire,
    head: Vec<u8>,
    body: Bytes,
    no_body: bool,
}

impl Plan {
    /// Plays `wire` with this answer, as far as the play sends one. `to_head`: the request was a HEAD.
    pub(in crate::sandbox) fn new(wire: Wire, answer: Response<Bytes>, to_head: bool) -> Self {
        let (parts, body) = answer.into_parts();
        let mut head = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
        for (name, value) in &parts.headers {
            if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING && name != header::CONNECTION {
                head.extend_from_slice(name.as_str().as_bytes());
                head.extend_from_slice(b": ");
                head.extend_from_slice(value.as_bytes());
                head.extend_from_slice(b"\r\n");
            }
        }
        let bare = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Self { wire, head, body, no_body: to_head || bare }
    }

    /// Plays it to the end, on whatever the peer does.
    pub(in crate::sandbox) async fn play(self, mut stream: TcpStream) {
        let _ = tokio::time::timeout(PATIENCE, self.act(&mut stream)).await;
    }

    async fn act(self, stream: &mut TcpStream) -> std::io::Result<()> {
        match self.wire {
            Wire::Down => stream.set_zero_linger(),
            Wire::Close => stream.shutdown().await,
            Wire::Hang | Wire::Drip => wait_for_end(stream).await,
            Wire::Reset => {
                stream.write_all(&self.framed(self.body.len(), self.body.len() / 2)).await?;
                // The reset must not overtake the bytes: the peer's buffer is given a moment to take them.
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.set_zero_linger()
            }
            Wire::Truncated => {
                stream.write_all(&self.framed(self.body.len() + 100, self.body.len())).await?;
                end(stream).await
            }
            Wire::TruncatedChunked => {
                stream.write_all(&self.chunked("", false)).await?;
                end(stream).await
            }
            Wire::Conflict => {
                let both = format!("Content-Length: {}\r\n", self.body.len());
                stream.write_all(&self.chunked(&both, true)).await?;
                end(stream).await
            }
            Wire::Early => {
                stream.write_all(&self.framed(self.body.len(), self.body.len())).await?;
                wait_for_end(stream).await
            }
            Wire::EarlyClose => stream.write_all(&self.framed(self.body.len(), self.body.len())).await,
            Wire::Surplus => {
                let mut bytes = self.framed(self.body.len(), self.body.len());
                bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nX-Surplus: 1\r\nContent-Length: 6\r\n\r\npoison");
                stream.write_all(&bytes).await?;
                wait_for_end(stream).await
            }
            Wire::Upgrade => {
                let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(answer).await?;
                wait_for_end(stream).await
            }
            Wire::Garbage => {
                stream.write_all(b"\x16\x03\x01 220 this is not HTTP\r\n\r\n").await?;
                end(stream).await
            }
        }
    }

    /// Head and body, with a Content-Length of `told` and only `sent` bytes of the body.
    fn framed(&self, told: usize, sent: usize) -> Vec<u8> {
        let mut bytes = self.head.clone();
        bytes.extend_from_slice(format!("Content-Length: {told}\r\n\r\n").as_bytes());
        if !self.no_body {
            bytes.extend_from_slice(&self.body[..sent]);
        }
        bytes
    }

    /// Head and body in one chunk, with or without the last chunk.
    fn chunked(&self, more: &str, complete: bool) -> Vec<u8> {
        let mut frame = String::from(more);
        let _ = write!(frame, "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", self.body.len().max(1));
        let mut bytes = self.head.clone();
        bytes.extend_from_slice(frame.as_bytes());
        bytes.extend_from_slice(if self.body.is_empty() { b" " } else { &self.body });
        bytes.extend_from_slice(if complete { b"\r\n0\r\n\r\n" } else { b"\r\n" });
        bytes
    }
}

/// No more from us; what the peer still sends is read away, so that our bytes are not lost to a reset.
async fn end(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.shutdown().await?;
    wait_for_end(stream).await
}

/// Reads (and forgets) until the peer closes.
async fn wait_for_end(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
