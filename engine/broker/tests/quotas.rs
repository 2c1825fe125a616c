//! Client quotas: whoever sends or fetches too much is told to pause, and is not heard until then.

mod wire_client;

use std::time::Duration;

use ringmill_ring::now;

use wire_client::{Client, Scene, batch, fetch_request};

/// Bytes a second.
const QUOTA: f64 = 10_000.0;

#[test]
fn producers_share_their_quota_over_all_connections_and_cores() {
    for cores in [1, 3] {
        let mut scene = Scene::with_cores(7, cores);
        let running = scene.start();
        scene.client(async {
            let mut client = Client::connect().await;
            client.create_topic("t", 4).await;
            client
                .set_quota("producer_byte_rate", Some("test"), QUOTA)
                .await;
            let mut others = Vec::new();
            for _ in 0..4 {
                others.push(Client::connect().await);
            }
            let value = "x".repeat(5_000);
            let began = now();
            let mut sent = 0.0;
            for n in 0..60 {
                let batch = batch(&[&value]);
                sent += batch.len() as f64;
                let produced = others[n % 4].produce("t", n as i32 % 4, batch).await;
                assert_eq!(produced.0, 0, "what came is taken");
            }
            let took = (now() - began).as_secs_f64();
            let at_least = sent / QUOTA - 12.0;
            assert!(took > at_least, "{sent} bytes in {took} s");
            assert!(took < 3.0 * sent / QUOTA, "{sent} bytes in {took} s");
        });
        scene.stop(running);
    }
}

#[test]
fn a_fetch_beyond_the_quota_brings_nothing_and_is_made_again() {
    let mut scene = Scene::with_cores(8, 2);
    let running = scene.start();
    scene.client(async {
        let mut client = Client::connect().await;
        client.create_topic("t", 1).await;
        let value = "x".repeat(5_000);
        for _ in 0..60 {
            client.produce("t", 0, batch(&[&value])).await;
        }
        client.set_quota("consumer_byte_rate", None, QUOTA).await;
        let (mut offset, mut paused) = (0, 0);
        let began = now();
        while offset < 60 {
            let mut request = fetch_request(100, 1, "t", &[(0, offset)]);
            request.topics[0].partitions[0].max_bytes = 20_000;
            let asked = now();
            let fetched = client.fetch_with(12, request).await;
            let throttle = fetched.0.throttle_time_ms;
            if throttle > 0 {
                paused += 1;
                assert_eq!(fetched.0.topics.len(), 0, "nothing is served");
                // who does not pause is not heard all the same
                client.fetch(0, 0, "t", &[]).await;
                let heard = now() - asked;
                assert!(heard >= Duration::from_millis(throttle as u64), "{heard:?}");
                continue;
            }
            assert!(now() - asked < Duration::from_secs(1));
            offset += fetched.records().len() as i64;
        }
        let took = (now() - began).as_secs_f64();
        assert!(paused > 2 && took > 18.0, "{paused} pauses in {took} s");
    });
    scene.stop(running);
}
