//! Addresses of brokers as people write them.

use std::net::Ipv6Addr;

/// Splits `HOST:PORT` or `[IPV6]:PORT`.
pub(crate) fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    match bare {
        Some(host) => host.parse::<Ipv6Addr>().is_ok().then_some((host, port)),
        None if host.is_empty() || host.contains([':', '/']) => None,
        None => Some((host, port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_split_or_refused() {
        assert_eq!(split_host_port("kafka:9092"), Some(("kafka", 9092)));
        assert_eq!(split_host_port(" 10.0.0.1:1 "), Some(("10.0.0.1", 1)));
        assert_eq!(split_host_port("[::1]:9092"), Some(("::1", 9092)));
        for bad in [
            "",
            "kafka",
            "kafka:",
            ":9092",
            "kafka:0",
            "kafka:70000",
            "::1:9092",
            "[x]:1",
            "http://a:1",
        ] {
            assert_eq!(split_host_port(bad), None, "{bad}");
        }
    }
}
