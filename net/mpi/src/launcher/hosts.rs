//! Which rank runs where. Hosts that are loopback addresses are this machine, each as if it were a
//! machine of its own.

use std::net::{IpAddr, Ipv4Addr};

use thiserror::Error;

/// A host of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its address.
    pub address: IpAddr,
    /// Ranks that it takes before it is the next one's turn.
    pub slots: usize,
}

/// A host that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    /// It is no address with an optional number.
    #[error("{0:?} is no host: say ADDRESS or ADDRESS:SLOTS")]
    Form(String),
    /// Other machines are not reached yet.
    #[error("{0} is not this machine: only loopback addresses are served so far")]
    Far(IpAddr),
}

/// A list of hosts, with commas between them: `127.0.0.1:2,127.0.0.2`.
///
/// # Errors
/// If one of them cannot be used.
pub fn parse(list: &str) -> Result<Vec<Host>, HostError> {
    let one = |text: &str| {
        let wrong = || HostError::Form(text.to_owned());
        let (address, slots) = text.split_once(':').unwrap_or((text, "1"));
        let address = match address {
            "localhost" => IpAddr::from(Ipv4Addr::LOCALHOST),
            address => address.parse().map_err(|_| wrong())?,
        };
        let slots = slots
            .parse()
            .ok()
            .filter(|slots| *slots > 0)
            .ok_or_else(wrong)?;
        match address.is_loopback() {
            true => Ok(Host { address, slots }),
            false => Err(HostError::Far(address)),
        }
    };
    list.split(',').map(one).collect()
}

/// Each rank's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// By rank.
    hosts: Vec<usize>,
    /// By host.
    addresses: Vec<IpAddr>,
}

impl Places {
    pub(super) fn hosts(&self) -> usize {
        self.addresses.len()
    }

    pub(super) fn host_of(&self, rank: usize) -> usize {
        self.hosts[rank]
    }

    pub(super) fn on(&self, host: usize) -> Vec<usize> {
        (0..self.hosts.len())
            .filter(|rank| self.hosts[*rank] == host)
            .collect()
    }

    pub(super) fn address_of(&self, rank: usize) -> IpAddr {
        self.addresses[self.hosts[rank]]
    }

    pub(super) fn as_list(&self) -> String {
        let numbers: Vec<String> = self.hosts.iter().map(usize::to_string).collect();
        numbers.join(",")
    }
}

/// Deals ranks out to hosts, each host's slots in turn. With `only_tcp`, each rank is a host.
pub(super) fn deal(hosts: &[Host], ranks: usize, only_tcp: bool) -> Places {
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    if only_tcp {
        return Places {
            hosts: (0..ranks).collect(),
            addresses: vec![here; ranks],
        };
    }
    if hosts.is_empty() {
        return Places {
            hosts: vec![0; ranks],
            addresses: vec![here],
        };
    }
    let turns = hosts
        .iter()
        .enumerate()
        .flat_map(|(at, host)| vec![at; host.slots]);
    let dealt: Vec<usize> = turns.cycle().take(ranks).collect();
    // Hosts without a rank have no number.
    let used = 1 + dealt.iter().max().copied().unwrap_or(0);
    let addresses = hosts.iter().take(used).map(|host| host.address).collect();
    Places {
        hosts: dealt,
        addresses,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_in_turn() {
        let hosts = parse("127.0.0.1:2,127.0.0.2").unwrap();
        let places = deal(&hosts, 5, false);
        assert_eq!(places.as_list(), "0,0,1,0,0");
        assert_eq!(places.on(0), [0, 1, 3, 4]);
        assert_eq!(deal(&hosts, 2, false).hosts(), 1);
        assert_eq!(deal(&hosts, 3, true).as_list(), "0,1,2");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        assert!(matches!(parse("127.0.0.1:0"), Err(HostError::Form(_))));
        assert!(matches!(parse("a b"), Err(HostError::Form(_))));
        assert!(matches!(parse("10.0.0.1"), Err(HostError::Far(_))));
        assert_eq!(parse("localhost").unwrap()[0].slots, 1);
    }
}
