//! Names to addresses over the ring: `/etc/hosts` first, then the name servers of
//! `/etc/resolv.conf`. The blocking resolver of the C library would stop the core.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{UdpSocket, fs, random_u64, timeout};

use super::dns::{self, Kind, ResolvConf};

/// How long one server is given (resolv.conf(5): RES_TIMEOUT is 5 s; two attempts of half).
const ATTEMPT: Duration = Duration::from_millis(2500);
const ATTEMPTS: usize = 2;

/// All addresses of `host`, IPv4 first; an address stands for itself.
///
/// # Errors
/// `NotFound` if nobody knows the name; what the socket says if no server can be asked.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut found = addresses(host).await?;
    found.sort_by_key(IpAddr::is_ipv6);
    if found.is_empty() {
        let text = format!("no address is known for the name {host:?}");
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(found
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect())
}

async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let found = dns::in_hosts(&text("/etc/hosts").await, host);
    if !found.is_empty() {
        return Ok(found);
    }
    // RFC 6761 §6.3
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
    }
    let conf = ResolvConf::parse(&text("/etc/resolv.conf").await);
    for name in conf.candidates(host) {
        let mut found = ask(&conf, &name, Kind::A).await?;
        found.extend(ask(&conf, &name, Kind::Aaaa).await?);
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// A file's text, empty if it is not there: a machine may have neither.
async fn text(path: &str) -> String {
    let content = fs::read(path).await.unwrap_or_default();
    String::from_utf8_lossy(&content).into_owned()
}

async fn ask(conf: &ResolvConf, name: &str, kind: Kind) -> io::Result<Vec<IpAddr>> {
    let id = random_u64() as u16;
    let Some(question) = dns::question(id, name, kind) else {
        return Ok(Vec::new());
    };
    let question = Bytes::from(question);
    let mut failure = None;
    for _ in 0..ATTEMPTS {
        for &server in &conf.servers {
            match timeout(ATTEMPT, exchange(server, id, &question)).await {
                Ok(Ok(addresses)) => return Ok(addresses),
                Ok(Err(error)) => failure = Some(error),
                Err(elapsed) => failure = Some(elapsed.into()),
            }
        }
    }
    failure.map_or(Ok(Vec::new()), Err)
}

async fn exchange(server: SocketAddr, id: u16, question: &Bytes) -> io::Result<Vec<IpAddr>> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.send_to(vec![question.clone()], server).await?;
    loop {
        let buffer = BytesMut::with_capacity(dns::MAX_ANSWER);
        let (received, buffer) = socket.recv_from(buffer).await;
        let (_, from) = received?;
        if from == server
            && let Some(addresses) = dns::answer(id, &buffer)
        {
            return Ok(addresses);
        }
    }
}
