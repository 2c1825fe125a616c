//! Sends without a copy: the bytes arrive as they were, whatever becomes of the sender, and where
//! the kernel refuses they are sent all the same.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{Features, RingConfig, TcpStream, now, run, spawn, timeout};

use super::{pair, pattern, ring};

async fn received(stream: TcpStream) -> BytesMut {
    let mut got = BytesMut::new();
    while stream.recv(&mut got).await.unwrap() > 0 {}
    got
}

/// Memory that is used for something else as soon as it is freed.
struct Watched(Vec<u8>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.fill(0xEE);
    }
}

async fn whole() {
    let (client, server) = pair().await;
    let receiving = spawn(received(server));
    let mut sent = Vec::new();
    for round in 0..40u64 {
        let large = pattern(1 + (round as usize * 7919) % 300_000, round);
        let small = pattern(100, round);
        sent.extend_from_slice(&large);
        client.send_zero_copy(vec![large]).await.unwrap();
        let pieces = vec![small.slice(..1), small.slice(1..50), small.slice(50..)];
        sent.extend_from_slice(&small);
        client.send_zero_copy(pieces).await.unwrap();
    }
    client.send_zero_copy(vec![]).await.unwrap();
    drop(client);
    assert!(receiving.await.unwrap() == sent);
}

#[test]
fn what_is_sent_without_a_copy_arrives_whole() {
    ring(whole());
}

#[test]
fn without_the_operation_it_is_sent_with_a_copy() {
    let config = RingConfig {
        pin: false,
        features: Features {
            zero_copy: false,
            ..Features::ALL
        },
        ..RingConfig::default()
    };
    run(config, whole()).unwrap();
}

/// Nobody may write into memory that the kernel still reads: a share of it stays with the driver,
/// also when whoever sent has dropped everything, and is given up in the end.
#[test]
fn lent_memory_stays_until_the_kernel_has_done_with_it() {
    ring(async {
        let (client, server) = pair().await;
        let mut buffers = Vec::new();
        // Many, so that some are still on their way when they are looked at.
        for round in 0..50u64 {
            let memory = BytesMut::from(&pattern(200_000, round)[..]).freeze();
            let sending = client.send_zero_copy(vec![memory.clone()]);
            if timeout(Duration::from_millis(20), sending).await.is_err() {
                break;
            }
            buffers.push(memory);
        }
        drop(client);
        let expected: Vec<u8> = (0..buffers.len() as u64)
            .flat_map(|round| pattern(200_000, round))
            .collect();
        // What is unique can be written: then nothing of it may be on its way any more.
        let (mut got, mut scribbled) = (BytesMut::new(), 0);
        loop {
            buffers.retain_mut(|memory| match std::mem::take(memory).try_into_mut() {
                Ok(mut own) => {
                    own.fill(0xEE);
                    scribbled += 1;
                    false
                }
                Err(shared) => {
                    *memory = shared;
                    true
                }
            });
            match server.recv(&mut got).await {
                Ok(1..) => {}
                _ => break,
            }
        }
        assert!(got.len() >= expected.len() && got[..expected.len()] == expected[..]);
        let begun = now();
        while !buffers.is_empty() {
            buffers.retain_mut(|memory| !memory.is_unique());
            ringmill_ring::sleep(Duration::from_millis(1)).await;
            assert!(now() - begun < Duration::from_secs(20), "never given back");
        }
        assert!(scribbled > 0, "some were given back before the end");
    });
}

/// The peer does not read before the ring has ended: a part of what was sent is still in its
/// sender's memory then.
#[test]
fn what_a_ring_has_lent_when_it_ends_is_never_freed() {
    const LEN: usize = 1 << 20;
    let peer = ring(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (peer, _) = listener.accept().unwrap();
        let memory = Bytes::from_owner(Watched(vec![7; LEN]));
        let sending = client.send_zero_copy(vec![memory]);
        let _ = timeout(Duration::from_millis(100), sending).await;
        peer
    });
    let mut got = Vec::new();
    let _ = std::io::Read::read_to_end(&mut &peer, &mut got);
    assert!(!got.is_empty());
    assert!(got.iter().all(|byte| *byte == 7), "freed memory was sent");
}
