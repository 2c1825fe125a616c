//! Names to addresses, the pure half: the files `hosts` and `resolv.conf`, and DNS
//! questions and answers (RFC 1035), as far as a client needs them.
//!
//! Answers are checked, never trusted: a length that leads outside of the message ends the reading.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port of DNS.
const PORT: u16 = 53;
/// Longest answer over UDP that is taken, in bytes.
pub(crate) const MAX_ANSWER: usize = 4096;
/// Most servers and search domains taken from `resolv.conf` (resolv.conf(5): MAXNS is 3).
const MAX_SERVERS: usize = 3;
const MAX_SEARCH: usize = 6;
/// Bytes of a DNS header.
const HEADER: usize = 12;
/// Longest label and name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 253;

/// The addresses of `name` in a `hosts` file (hosts(5)).
pub(crate) fn in_hosts(file: &str, name: &str) -> Vec<IpAddr> {
    file.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words
                .any(|word| word.eq_ignore_ascii_case(name))
                .then_some(address)
        })
        .collect()
}

/// Whom to ask, and for which names (resolv.conf(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
}

impl ResolvConf {
    pub(crate) fn parse(file: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
        };
        for line in file.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    conf.servers
                        .extend(server.map(|ip| SocketAddr::new(ip, PORT)));
                }
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    conf.ndots = ndots.unwrap_or(conf.ndots);
                }
                _ => {}
            }
        }
        conf.servers.truncate(MAX_SERVERS);
        conf.search.truncate(MAX_SEARCH);
        conf
    }

    /// The full names to ask for, in order.
    pub(crate) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(absolute) = name.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let mut names: Vec<String> = self.search.iter().map(|d| format!("{name}.{d}")).collect();
        let dots = name.matches('.').count();
        let place = if dots >= self.ndots { 0 } else { names.len() };
        names.insert(place, name.to_owned());
        names
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Kind {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses (RFC 3596).
    Aaaa = 28,
}

const CLASS_IN: u16 = 1;

/// A question for the addresses of `name`; `None` if that is no name.
pub(crate) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    message.extend_from_slice(&id.to_be_bytes());
    // recursion desired; one question
    message.extend_from_slice(&[0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    if name.is_empty() || name.len() > MAX_NAME {
        return None;
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL {
            return None;
        }
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&(kind as u16).to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(message)
}

/// The addresses in an answer to question `id`; `None` if it is not one. A name that does not exist
/// has none.
pub(crate) fn answer(id: u16, message: &[u8]) -> Option<Vec<IpAddr>> {
    let header = message.first_chunk::<HEADER>()?;
    let is_response = header[2] & 0x80 != 0;
    if u16::from_be_bytes([header[0], header[1]]) != id || !is_response {
        return None;
    }
    let questions = u16::from_be_bytes([header[4], header[5]]);
    let answers = u16::from_be_bytes([header[6], header[7]]);
    let mut rest = &message[HEADER..];
    for _ in 0..questions {
        rest = skip_name(rest)?.get(4..)?;
    }
    let mut addresses = Vec::new();
    for _ in 0..answers {
        let (fixed, data) = skip_name(rest)?.split_first_chunk::<10>()?;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let (data, after) = data.split_at_checked(length)?;
        match (u16::from_be_bytes([fixed[0], fixed[1]]), data.len()) {
            (1, 4) => {
                let octets: [u8; 4] = data.try_into().ok()?;
                addresses.push(Ipv4Addr::from(octets).into());
            }
            (28, 16) => {
                let octets: [u8; 16] = data.try_into().ok()?;
                addresses.push(Ipv6Addr::from(octets).into());
            }
            _ => {}
        }
        rest = after;
    }
    Some(addresses)
}

/// Steps over a name: labels up to a zero, or to a pointer (RFC 1035 §4.1.4), which ends it.
fn skip_name(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (&length, after) = rest.split_first()?;
        match length {
            0 => return Some(after),
            0xc0.. => return after.get(1..),
            _ => rest = after.get(usize::from(length)..)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lines_give_all_addresses_of_a_name() {
        let file = "127.0.0.1 localhost loop # local\n# 9.9.9.9 localhost\n::1\tLOCALHOST\nbad localhost\n";
        let found = in_hosts(file, "localhost");
        assert_eq!(
            found,
            [
                "127.0.0.1".parse::<IpAddr>().unwrap(),
                "::1".parse().unwrap()
            ]
        );
        assert_eq!(in_hosts(file, "local"), Vec::<IpAddr>::new());
    }

    #[test]
    fn search_domains_come_before_or_after_by_the_dots() {
        let conf =
            ResolvConf::parse("nameserver 10.0.0.2\nsearch a.b c\noptions timeout:1 ndots:2\n");
        assert_eq!(conf.servers, ["10.0.0.2:53".parse().unwrap()]);
        assert_eq!(conf.candidates("x.y"), ["x.y.a.b", "x.y.c", "x.y"]);
        assert_eq!(conf.candidates("x.y.z"), ["x.y.z", "x.y.z.a.b", "x.y.z.c"]);
        assert_eq!(conf.candidates("x."), ["x"]);
    }

    #[test]
    fn an_answer_with_alias_and_pointers_is_read() {
        let mut message = question(7, "kafka.example", Kind::A).unwrap();
        message[2] |= 0x80;
        message[7] = 2;
        // an alias, then an address, both named by a pointer to the question's name
        message.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 3, 1, b'x', 0]);
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 1, 2, 3]);
        assert_eq!(answer(7, &message), Some(vec!["10.1.2.3".parse().unwrap()]));
        assert_eq!(answer(8, &message), None, "another question's");
        for cut in 0..message.len() {
            assert_eq!(answer(7, &message[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_name_is_not_asked() {
        let long = "a.".repeat(130);
        for bad in ["", ".", "a..b", &"x".repeat(64), &long] {
            assert_eq!(question(1, bad, Kind::Aaaa), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(bytes: Vec<u8>) {
            answer(0, &bytes);
        }
    }
}
