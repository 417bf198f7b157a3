//! The name servers of `[server] resolver`, asked over UDP, and over TCP for what is too long for it.
//!
//! Each question leaves from a port of its own, which the system draws, under a random id, and only the server that was asked is
//! heard: an answer cannot be made up by who does not see the question (RFC 5452).

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{
    message::{Answer, Kind, Question},
    source::{Failure, Found},
};
use crate::config::model::IpFamily;

/// How long each server may take, in the first round and in the second.
const ROUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// Once one family is there, the other may take so much longer (RFC 8305 section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// How long an answer without the other family is used.
const HALF_TTL: Duration = Duration::from_secs(5);
/// Lifetimes are cut to this. Below the shortest one, every connection would ask.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
const HOSTS: &str = "/etc/hosts";

/// The addresses of `host`: from `/etc/hosts`, else from the first server that answers.
pub(super) async fn look_up(servers: &[SocketAddr], host: &str, family: IpFamily) -> Result<Found, Failure> {
    let hosts = tokio::task::spawn_blocking(|| fs::read_to_string(HOSTS)).await;
    let listed = hosts.ok().and_then(Result::ok).map(|text| listed(&text, host, family)).unwrap_or_default();
    if !listed.is_empty() {
        return Ok(Found { addresses: listed, ttl: super::source::SYSTEM_TTL });
    }
    let (v4, v6) = (ask_all(servers, host, Kind::A), ask_all(servers, host, Kind::Aaaa));
    let mut found = match family {
        IpFamily::V4 => v4.await?,
        IpFamily::V6 => v6.await?,
        IpFamily::Any => both(v4, v6).await?,
    };
    found.ttl = found.ttl.clamp(TTL.0, TTL.1);
    Ok(found)
}

/// What `/etc/hosts` says of a name.
fn listed(text: &str, host: &str, family: IpFamily) -> Vec<IpAddr> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let ip = words.next()?.parse::<IpAddr>().ok().filter(|ip| family.admits(*ip))?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(ip)
    };
    text.lines().filter_map(line).collect()
}

/// IPv6 first (RFC 8305 section 3). One family is enough; that it is alone is not believed for long where the other's answer
/// has not come.
async fn both(
    v4: impl Future<Output = Result<Found, Failure>>,
    v6: impl Future<Output = Result<Found, Failure>>,
) -> Result<Found, Failure> {
    tokio::pin!(v4, v6);
    let (first, second) = tokio::select! {
        first = &mut v6 => {
            let wait = if usable(&first) { timeout(RESOLUTION_DELAY, v4).await.ok() } else { Some(v4.await) };
            (Some(first), wait)
        }
        second = &mut v4 => {
            let wait = if usable(&second) { timeout(RESOLUTION_DELAY, v6).await.ok() } else { Some(v6.await) };
            (wait, Some(second))
        }
    };
    match (first, second) {
        (Some(Ok(six)), Some(Ok(four))) => {
            let ttls = [&six, &four].into_iter().filter(|found| !found.addresses.is_empty()).map(|found| found.ttl);
            let ttl = ttls.min().unwrap_or_default();
            Ok(Found { addresses: [six.addresses, four.addresses].concat(), ttl })
        }
        (Some(Ok(one)), None | Some(Err(_))) | (None | Some(Err(_)), Some(Ok(one))) if !one.addresses.is_empty() => {
            Ok(Found { ttl: one.ttl.min(HALF_TTL), ..one })
        }
        (Some(Err(failure)), _) | (_, Some(Err(failure))) => Err(failure),
        (one, two) => one.or(two).unwrap_or_else(|| Err(Failure::away("nobody was asked"))),
    }
}

fn usable(result: &Result<Found, Failure>) -> bool {
    result.as_ref().is_ok_and(|found| !found.addresses.is_empty())
}

/// Asks one server after the other, twice.
async fn ask_all(servers: &[SocketAddr], host: &str, kind: Kind) -> Result<Found, Failure> {
    let mut why = "nobody was asked".to_owned();
    for limit in ROUNDS {
        for server in servers {
            let mut id = [0; 2];
            aws_lc_rs::rand::fill(&mut id).map_err(|_| Failure::away("no randomness for a question"))?;
            let Some(question) = Question::new(u16::from_be_bytes(id), kind, host) else {
                return Err(Failure::of_name("it is no name of the DNS"));
            };
            let answer = match timeout(limit, ask(*server, &question)).await {
                Ok(answer) => answer,
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            why = match answer {
                Ok(Answer::Addresses(addresses, ttl)) => return Ok(Found { addresses, ttl }),
                Ok(Answer::NoName) => return Err(Failure::of_name("there is no such name (NXDOMAIN)")),
                Ok(Answer::Failed(code)) => format!("the name server {server} failed ({})", meaning(code)),
                Ok(Answer::Truncated) => format!("the name server {server} cut its answer off"),
                Err(error) => format!("the name server {server} does not answer ({error})"),
            };
        }
    }
    Err(Failure::away(why))
}

/// RFC 1035 section 4.1.1.
fn meaning(code: u8) -> String {
    match code {
        1 => "FORMERR".to_owned(),
        2 => "SERVFAIL".to_owned(),
        4 => "NOTIMP".to_owned(),
        5 => "REFUSED".to_owned(),
        other => format!("code {other}"),
    }
}

async fn ask(server: SocketAddr, question: &Question) -> io::Result<Answer> {
    match by_datagram(server, question).await? {
        Answer::Truncated => by_stream(server, question).await,
        answer => Ok(answer),
    }
}

async fn by_datagram(server: SocketAddr, question: &Question) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question.message()).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not answer this question may be an attempt at making something up: the answer is waited for.
        if let Some(answer) = question.answer(&buffer[..length]) {
            return Ok(answer);
        }
    }
}

/// RFC 7766: each message behind its length.
async fn by_stream(server: SocketAddr, question: &Question) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let message = question.message();
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &message].concat()).await?;
    let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut buffer).await?;
    question.answer(&buffer).ok_or_else(|| io::Error::other("its answer is malformed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_is_read_as_every_program_reads_it() {
        let text = "# a comment\n192.0.2.1\tone api.example  # API.Example2\n::1 localhost api.EXAMPLE\n\nnonsense api.example\n";
        let find = |host, family| listed(text, host, family).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(find("api.example", IpFamily::Any), ["192.0.2.1", "::1"]);
        assert_eq!(find("api.example", IpFamily::V6), ["::1"]);
        assert!(find("api.example2", IpFamily::Any).is_empty());
    }
}
