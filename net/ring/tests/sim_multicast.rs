//! Multicast over the simulated network: what ip(7) promises.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::sim::World;
use ringmill_ring::{UdpSocket, sleep, spawn, timeout};

const SECOND: Duration = Duration::from_secs(1);

fn group() -> SocketAddrV4 {
    "239.1.2.3:9".parse().unwrap()
}

/// What a member of the group hears until there is a second of silence: the bytes, and whose.
async fn hear() -> Vec<(u8, String)> {
    let socket = UdpSocket::join(group(), Ipv4Addr::UNSPECIFIED, None)
        .await
        .unwrap();
    let mut received = Vec::new();
    loop {
        let receive = socket.recv_from(BytesMut::with_capacity(100));
        let Ok((result, buf)) = timeout(SECOND, receive).await else {
            return received;
        };
        let (_, from) = result.unwrap();
        received.push((buf[0], from.ip().to_string()));
    }
}

async fn send(loopback: bool) {
    let any = "0.0.0.0:0".parse().unwrap();
    let socket = UdpSocket::bind_multicast(any, Ipv4Addr::UNSPECIFIED, 1, loopback)
        .await
        .unwrap();
    let bufs = vec![Bytes::from(vec![u8::from(loopback)])];
    socket.send_to(bufs, group().into()).await.unwrap();
    let elsewhere = "239.1.2.4:9".parse().unwrap();
    let bufs = vec![Bytes::from_static(&[9])];
    socket.send_to(bufs, elsewhere).await.unwrap();
    sleep(SECOND / 10).await;
}

#[test]
fn every_member_of_a_group_gets_what_is_sent_to_it() {
    let mut world = World::new(1);
    let a = world.add_node("a", "10.0.0.1".parse().unwrap());
    let b = world.add_node("b", "10.0.0.2".parse().unwrap());
    let on_a = world.start(a, async {
        let other = spawn(hear());
        [hear().await, other.await.unwrap()]
    });
    let on_b = world.block_on(b, async {
        let member = spawn(hear());
        sleep(SECOND / 10).await;
        send(true).await;
        send(false).await;
        member.await.unwrap()
    });
    world.run_for(10 * SECOND);
    let both = vec![(1, "10.0.0.2".to_owned()), (0, "10.0.0.2".to_owned())];
    assert_eq!(on_a.take().remove(0), [both.clone(), both.clone()]);
    assert_eq!(on_b, both[..1]);
}

#[test]
fn only_groups_can_be_joined() {
    let mut world = World::new(1);
    let a = world.add_node("a", "10.0.0.1".parse().unwrap());
    world.block_on(a, async {
        let single = "10.0.0.1:9".parse().unwrap();
        let refused = UdpSocket::join(single, Ipv4Addr::UNSPECIFIED, None).await;
        let kind = refused.map(drop).unwrap_err().kind();
        assert_eq!(kind, std::io::ErrorKind::InvalidInput);
    });
}
