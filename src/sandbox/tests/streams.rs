//! Large bodies flow in constant memory, and fast.

use std::time::Instant;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::client::{bearer, sandbox};
use crate::sandbox::Provider;

const SIZE: usize = 128 * 1024 * 1024;

#[tokio::test]
async fn a_large_download_flows_and_waits_for_a_slow_reader() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::Ipxo, "billing").await;
    let mut stream = TcpStream::connect(at.address()).await.unwrap();
    let head =
        format!("GET /ipxo/billing/x/download?size={SIZE} HTTP/1.1\r\nHost: x\r\n{auth}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let (mut buffer, mut total) = (vec![0; 1 << 20], 0);
    loop {
        let n = stream.read(&mut buffer).await.unwrap();
        if n == 0 {
            break;
        }
        total += n;
    }
    assert!((SIZE..SIZE + 1000).contains(&total));
    eprintln!("download: {} MB in {:?}", SIZE / 1_000_000, begun.elapsed());
}

#[tokio::test]
async fn a_large_chunked_upload_is_hashed_as_it_flows() {
    let at = sandbox(&[]).await;
    let auth = bearer(&at, Provider::Ipxo, "billing").await;
    let mut stream = TcpStream::connect(at.address()).await.unwrap();
    let head = format!(
        "PUT /ipxo/billing/x/upload HTTP/1.1\r\nHost: x\r\n{auth}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let chunk = [b"100000\r\n".as_slice(), &vec![7; 1 << 20], b"\r\n"].concat();
    for _ in 0..SIZE >> 20 {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.write_all(b"0\r\nX-End: yes\r\n\r\n").await.unwrap();
    eprintln!("upload: {} MB in {:?}", SIZE / 1_000_000, begun.elapsed());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let echo: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((echo["body"]["length"].as_u64(), &echo["body"]["complete"]), (Some(SIZE as u64), &true.into()));
    assert_eq!(echo["body"]["trailers"][0][1], "yes");
}
