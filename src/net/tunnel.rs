//! Through an egress proxy: HTTP CONNECT (RFC 9110 section 9.3.6) and SOCKS5 (RFC 1928), without credentials.
//!
//! The name of the target goes to the proxy as it is: there it is resolved. TLS goes through the tunnel from end
//! to end, so the proxy sees neither tokens nor secrets.

use std::net::IpAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::config::model::{EgressKind, EgressProxy};

/// No answer to a CONNECT is longer.
const MOST: usize = 8 * 1024;

/// Makes `tcp`, which leads to the proxy, lead to `host`. The error says what the proxy did instead.
pub(super) async fn open(tcp: &mut TcpStream, proxy: &EgressProxy, host: &str, port: u16) -> Result<(), String> {
    match proxy.kind {
        EgressKind::Http => http(tcp, host, port).await,
        EgressKind::Socks5 => socks5(tcp, host, port).await,
    }
}

async fn http(tcp: &mut TcpStream, host: &str, port: u16) -> Result<(), String> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut head = Vec::new();
    // Byte by byte, so that nothing behind the head is taken.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MOST {
            return Err("its answer has no end".to_owned());
        }
        head.push(tcp.read_u8().await.map_err(|_| "it closed the connection".to_owned())?);
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split_ascii_whitespace();
    let status = words.next().filter(|version| version.starts_with("HTTP/1.")).and(words.next());
    match status.and_then(|status| status.parse::<u16>().ok()) {
        Some(200..=299) => Ok(()),
        Some(407) => Err("it asks for credentials, which cupbearer does not send (HTTP 407)".to_owned()),
        Some(status) => Err(format!("it refused (HTTP {status})")),
        None => Err("its answer is no HTTP".to_owned()),
    }
}

async fn socks5(tcp: &mut TcpStream, host: &str, port: u16) -> Result<(), String> {
    let broken = |_| "it closed the connection".to_owned();
    tcp.write_all(&[5, 1, 0]).await.map_err(broken)?; // version 5, one method: no credentials
    let mut chosen = [0; 2];
    tcp.read_exact(&mut chosen).await.map_err(broken)?;
    match chosen {
        [5, 0] => {}
        [5, _] => return Err("it asks for credentials, which cupbearer does not send".to_owned()),
        _ => return Err("its answer is no SOCKS5".to_owned()),
    }
    let mut request = vec![5, 1, 0]; // version 5, CONNECT
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(4);
            request.extend(ip.octets());
        }
        Err(_) => {
            let length = u8::try_from(host.len()).map_err(|_| "the name is too long for it".to_owned())?;
            request.extend([3, length]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    tcp.write_all(&request).await.map_err(broken)?;
    let mut answer = [0; 4];
    tcp.read_exact(&mut answer).await.map_err(broken)?;
    let rest = match answer {
        [5, 0, _, 1] => 4,
        [5, 0, _, 4] => 16,
        [5, 0, _, 3] => usize::from(tcp.read_u8().await.map_err(broken)?),
        [5, code, ..] => return Err(format!("it refused ({})", meaning(code))),
        _ => return Err("its answer is no SOCKS5".to_owned()),
    };
    let mut bound = vec![0; rest + 2]; // an address and a port that say nothing to us
    tcp.read_exact(&mut bound).await.map_err(broken).map(drop)
}

/// RFC 1928 section 6.
fn meaning(code: u8) -> &'static str {
    match code {
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => "general failure",
    }
}
