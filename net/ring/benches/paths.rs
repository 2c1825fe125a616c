//! The choices of the ring core, measured side by side: `cargo bench -p ringmill-ring`.
//!
//! Each row runs both variants in turn, several times, and prints the medians and their ratio:
//! these machines are noisy, a ratio within one run is not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    Cores, Features, File, ListenOptions, OpenOptions, RingConfig, TcpListener, TcpStream, run,
    spawn,
};

const ROUNDS: usize = 7;

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn compare(name: &str, unit: &str, a: (&str, &dyn Fn() -> f64), b: (&str, &dyn Fn() -> f64)) {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        left.push(a.1());
        right.push(b.1());
    }
    let (left, right) = (median(left), median(right));
    let (a, b) = (a.0, b.0);
    println!(
        "{name}: {a} {left:.2} {unit}, {b} {right:.2} {unit}, ratio {:.2}",
        left / right
    );
}

async fn pair() -> (TcpStream, TcpStream) {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = TcpListener::bind(any, ListenOptions::default())
        .await
        .unwrap();
    let addr = listener.local_addr().unwrap();
    let client = spawn(TcpStream::connect(addr));
    let (server, _) = listener.accept().await.unwrap();
    (client.await.unwrap().unwrap(), server)
}

/// Round trips per second, in thousands, of `connections` pairs on one core.
fn echo(config: RingConfig, connections: usize, trips: usize) -> f64 {
    run(config, async {
        let mut clients = Vec::new();
        for _ in 0..connections {
            let (client, server) = pair().await;
            spawn(async move {
                let mut buf = BytesMut::new();
                while server.recv(&mut buf).await.unwrap_or(0) > 0 {
                    server.send(vec![buf.split().freeze()]).await.unwrap();
                }
            });
            clients.push(client);
        }
        let start = Instant::now();
        let tasks: Vec<_> = clients
            .into_iter()
            .map(|client| {
                spawn(async move {
                    let request = Bytes::from(vec![7; 64]);
                    let mut buf = BytesMut::new();
                    for _ in 0..trips / connections {
                        client.send(vec![request.clone()]).await.unwrap();
                        buf.clear();
                        while buf.len() < 64 {
                            client.recv(&mut buf).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        trips as f64 / start.elapsed().as_secs_f64() / 1e3
    })
    .unwrap()
}

/// Round trips per second, in thousands, between two cores through their mailboxes.
fn hops(spin: Duration, trips: usize) -> f64 {
    let cores = Cores::new(2);
    let ports = cores.mesh::<u64>(64).into_iter();
    let ports: Vec<_> = ports.map(|p| std::sync::Mutex::new(Some(p))).collect();
    let config = RingConfig {
        spin,
        ..RingConfig::default()
    };
    let running = cores.launch(config, move |id| {
        let port = ports[id].lock().unwrap().take().unwrap();
        async move {
            let start = Instant::now();
            for i in 0..trips as u64 {
                if id == 0 {
                    port.send(1, i).await;
                }
                port.recv().await;
                if id == 1 {
                    port.send(0, i).await;
                }
            }
            trips as f64 / start.elapsed().as_secs_f64() / 1e3
        }
    });
    running.unwrap().join().unwrap()[0]
}

/// Gigabytes per second from the page cache to a loopback socket whose peer reads on another
/// core, in pieces of `piece` bytes that begin anywhere within a page.
///
/// The threshold in `stream.rs` stays where it is by this measure, taken without a threshold
/// (Linux 6.18, two processors of a virtual machine that others load too, pipes of 1 MiB, medians
/// of 9 to 11 interleaved rounds, two runs). Splice as a multiple of read and send:
///
/// | piece     | speed, 1 connection | processor time | speed, 4 connections | processor time |
/// |-----------|---------------------|----------------|----------------------|----------------|
/// | 64 KiB    | 0.89, 0.47          | 1.22, 2.36     | 0.85, 2.29           | 1.23, 1.27     |
/// | 256 KiB   | 0.88, 0.98          | 1.06, 1.39     | 1.41, 1.36           | 1.19, 1.25     |
/// | 512 KiB   | 1.24, 0.87          | 0.94, 1.18     | 1.43, 1.40           | 1.20, 1.15     |
/// | 1024 KiB  | 1.07, 1.45          | 1.06, 1.17     | 1.63, 1.60           | 1.17, 1.25     |
/// | 4096 KiB  | 1.12, 1.03          | 0.89, 1.19     | 1.10, 1.64           | 1.19, 1.20     |
///
/// Below 512 KiB one connection loses both ways. Several pairs in flight are faster from 256 KiB
/// on, by a fifth more processor time: the kernel's threads take the other processor, which a
/// core of ours has a use for. Pipes of 64 KiB were no better (one run).
fn transfer(splice: bool, piece: u64) -> f64 {
    const SIZE: u64 = 256 << 20;
    let path = std::env::temp_dir().join("ringmill-bench-paths");
    if std::fs::metadata(&path).map_or(true, |m| m.len() != SIZE) {
        std::fs::write(&path, vec![5; SIZE as usize]).unwrap();
    }
    let (tell, addr) = std::sync::mpsc::channel();
    let receiver = std::thread::spawn(move || {
        run(RingConfig::default(), async move {
            let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let listener = TcpListener::bind(any, ListenOptions::default())
                .await
                .unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut buf = BytesMut::with_capacity(1 << 20);
            while stream.recv(&mut buf).await.unwrap() > 0 {
                buf.clear();
            }
        })
        .unwrap();
    });
    let addr = addr.recv().unwrap();
    let config = RingConfig {
        features: Features {
            splice,
            ..Features::ALL
        },
        ..RingConfig::default()
    };
    let rate = run(config, async move {
        let file = File::open(&path, OpenOptions::new().read(true))
            .await
            .unwrap();
        let stream = TcpStream::connect(addr).await.unwrap();
        let start = Instant::now();
        let mut at = 777;
        while at + piece <= SIZE {
            stream.send_file(&file, at, piece).await.unwrap();
            at += piece;
        }
        (at - 777) as f64 / start.elapsed().as_secs_f64() / 1e9
    })
    .unwrap();
    receiver.join().unwrap();
    rate
}

fn main() {
    let plain = RingConfig {
        registered_files: 0,
        ..RingConfig::default()
    };
    let registered = RingConfig::default();
    for connections in [1, 64] {
        compare(
            &format!("echo 64 B, {connections} connections"),
            "k trips/s",
            ("registered files", &|| {
                echo(registered, connections, 60_000)
            }),
            ("plain", &|| echo(plain, connections, 60_000)),
        );
    }
    compare(
        "hop between cores",
        "k trips/s",
        ("spin 50 us", &|| hops(Duration::from_micros(50), 20_000)),
        ("sleep", &|| hops(Duration::ZERO, 5_000)),
    );
    // Shorter pieces are read and sent either way.
    for piece in [512 << 10, 1 << 20, 16 << 20] {
        compare(
            &format!("file to socket, {} KiB", piece >> 10),
            "GB/s",
            ("splice", &|| transfer(true, piece)),
            ("read and send", &|| transfer(false, piece)),
        );
    }
}
