//! A node of a NORM session that sends or receives one stream of known bytes, and a relay between
//! two groups that loses some of what it passes on: what interoperation with NRL's libnorm is
//! tried with (`cargo xtask conformance norm`).
//!
//! ```text
//! norm send|receive GROUP:PORT INTERFACE BYTES RATE
//! norm relay GROUP:PORT GROUP:PORT INTERFACE LOSS-PER-MILLE
//! ```
//!
//! The byte at place i of the stream is i % 251. RATE is in bytes per second, 0 for congestion
//! control.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

use bytes::BytesMut;
use ringmill_multicast::{
    Endpoint, Network, RateControl, ReceiverConfig, ReceiverEvent, SenderConfig, SenderEvent,
};
use ringmill_ring::{RingConfig, UdpSocket, now, random_u64, run, sleep, spawn};

type Failure = Box<dyn std::error::Error>;

const MESSAGE: u64 = 1_000;

/// The end of the stream is repaired for so long.
const SETTLE: Duration = Duration::from_secs(1);

fn bytes(from: u64, len: u64) -> Vec<u8> {
    (from..from + len)
        .map(|place| (place % 251) as u8)
        .collect()
}

fn network(group: SocketAddrV4, interface: Ipv4Addr) -> Network {
    Network::Multicast {
        group,
        interface,
        ttl: 1,
        loopback: true,
    }
}

/// Sends the stream, and waits until it was flushed as often as the settings say.
async fn send(network: Network, total: u64, rate: f64) -> Result<(), Failure> {
    let rate = match rate {
        0.0 => RateControl::Congestion {
            start: 1.0e6,
            min: 1.0e5,
            max: 100.0e6,
        },
        rate => RateControl::Fixed(rate),
    };
    let config = SenderConfig {
        rate,
        ..SenderConfig::new(1, random_u64() as u16)
    };
    let node = Endpoint::open(network, Some(config), None).await?;
    let stream = node.with_sender(|sender, now| sender.open_stream(now, None))?;
    let mut at = 0;
    while at < total {
        let len = MESSAGE.min(total - at);
        node.write(stream, bytes(at, len).into()).await?;
        at += len;
    }
    while node.sender_event().await != SenderEvent::Flushed {}
    sleep(SETTLE).await;
    let counters = node.with_sender(|sender, _| sender.counters());
    println!("sent {at}; {counters:?}");
    Ok(())
}

/// Receives the stream and checks every byte.
async fn receive(network: Network, total: u64) -> Result<(), Failure> {
    let node = Endpoint::open(network, None, Some(ReceiverConfig::new(2, random_u64()))).await?;
    println!("ready");
    let (mut at, mut started) = (0, None);
    while at < total {
        let chunk = node.read().await;
        started.get_or_insert(now());
        if (chunk.offset, chunk.lost) != (at, 0) {
            return Err(format!("{} follows {at}, {} lost", chunk.offset, chunk.lost).into());
        }
        if chunk.bytes != bytes(at, chunk.bytes.len() as u64) {
            return Err(format!("wrong bytes at {at}").into());
        }
        at += chunk.bytes.len() as u64;
        while let Some(event) = node.with_receiver(|receiver| receiver.poll_event()) {
            if let ReceiverEvent::SenderDown(sender) = event {
                return Err(format!("sender {sender} went away at {at}").into());
            }
        }
    }
    let took = started.map_or(Duration::ZERO, |started| now() - started);
    let counters = node.with_receiver(|receiver| receiver.counters());
    println!("received {at} in {:.3} s; {counters:?}", took.as_secs_f64());
    // What we owe the sender and other receivers is still answered for a moment.
    sleep(SETTLE / 2).await;
    Ok(())
}

/// So many datagrams are passed on before any is lost: libnorm begins a stream with the first
/// segment that it hears, so that it would miss the beginning (from its own sender as well).
const SPARED: u64 = 64;

/// Passes on what is sent to `from`, but for what it loses.
async fn pass_on(
    from: UdpSocket,
    own: [UdpSocket; 2],
    to: (usize, SocketAddrV4),
    loss_per_mille: u64,
) -> Result<(), Failure> {
    let own_addrs = [own[0].local_addr()?, own[1].local_addr()?];
    let mut passed = 0;
    loop {
        let (result, buf) = from.recv_from(BytesMut::with_capacity(65_507)).await;
        let (_, source) = result?;
        // What it has passed on itself comes back by the loopback.
        let lost = passed >= SPARED && random_u64() % 1_000 < loss_per_mille;
        if own_addrs.contains(&source) || lost {
            continue;
        }
        passed += 1;
        own[to.0].send_to(vec![buf.freeze()], to.1.into()).await?;
    }
}

async fn relay(
    groups: [SocketAddrV4; 2],
    interface: Ipv4Addr,
    loss_per_mille: u64,
) -> Result<(), Failure> {
    let any = SocketAddrV4::new(interface, 0);
    let own = [
        UdpSocket::bind_multicast(any, interface, 1, true).await?,
        UdpSocket::bind_multicast(any, interface, 1, true).await?,
    ];
    let buffer = Some(4 << 20);
    let one = UdpSocket::join(groups[0], interface, buffer).await?;
    let other = UdpSocket::join(groups[1], interface, buffer).await?;
    println!("ready");
    let there = pass_on(one, own.clone(), (1, groups[1]), loss_per_mille);
    let there = spawn(there);
    pass_on(other, own, (0, groups[0]), loss_per_mille).await?;
    there.await?
}

async fn node(args: Vec<String>) -> Result<(), Failure> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["send", group, interface, total, rate] => {
            let network = network(group.parse()?, interface.parse()?);
            send(network, total.parse()?, rate.parse()?).await
        }
        ["receive", group, interface, total, _rate] => {
            let network = network(group.parse()?, interface.parse()?);
            receive(network, total.parse()?).await
        }
        ["relay", one, other, interface, loss] => {
            let groups = [one.parse()?, other.parse()?];
            relay(groups, interface.parse()?, loss.parse()?).await
        }
        _ => Err("norm send|receive|relay …: see the example's head".into()),
    }
}

fn main() -> ExitCode {
    let args = std::env::args().skip(1).collect();
    match run(RingConfig::default(), node(args)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            eprintln!("norm: {failure}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("norm: the ring: {error}");
            ExitCode::FAILURE
        }
    }
}
