//! What a core does beside its operations, one by one: `cargo bench -p ringmill-ring --bench
//! executor`. Choices that are measured against each other stand in `paths.rs`.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Mutex;
use std::task::Poll;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringmill_ring::{Cores, Notify, RingConfig, run, sleep, spawn, yield_now};

const HOUR: Duration = Duration::from_secs(3600);

/// The time that a core of this machine takes for something.
fn timed<F: Future<Output = Duration>>(work: F) -> Duration {
    run(RingConfig::default(), work).expect("a ring")
}

fn mailboxes(c: &mut Criterion) {
    let port = Cores::new(1).mesh::<u64>(64).remove(0);
    c.bench_function("message into a lane and out of it", |b| {
        b.iter(|| {
            port.try_send(0, 7).expect("there is room");
            port.try_recv()
        });
    });
    let mut group = c.benchmark_group("message to another core");
    group.sample_size(20);
    for in_flight in [1, 64] {
        group.bench_function(BenchmarkId::new("in flight", in_flight), |b| {
            b.iter_custom(|count| hops(count, in_flight));
        });
    }
    group.finish();
}

/// Messages that come back from another core: the time of one way, cores that spin.
fn hops(count: u64, in_flight: u64) -> Duration {
    let cores = Cores::new(2);
    let ports = cores.mesh::<u64>(64).into_iter();
    let ports: Vec<_> = ports.map(|port| Mutex::new(Some(port))).collect();
    let config = RingConfig {
        spin: Duration::from_millis(1),
        ..RingConfig::default()
    };
    let rounds = count.div_ceil(2 * in_flight);
    let running = cores.launch(config, move |id| {
        let port = ports[id].lock().expect("nobody panics").take();
        let port = port.expect("a core runs once");
        async move {
            let begun = Instant::now();
            for round in 0..rounds {
                for n in 0..in_flight * u64::from(id == 0) {
                    port.send(1, round + n).await;
                }
                for _ in 0..in_flight {
                    let (_, message) = port.recv().await;
                    if id == 1 {
                        port.send(0, message).await;
                    }
                }
            }
            begun.elapsed()
        }
    });
    let times = running.expect("threads").join().expect("rings");
    times[0].mul_f64(count as f64 / (2 * in_flight * rounds) as f64)
}

fn tasks(c: &mut Criterion) {
    c.bench_function("task spawned and awaited", |b| {
        b.iter_custom(|count| {
            timed(async move {
                let begun = Instant::now();
                for n in 0..count {
                    black_box(spawn(async move { n }).await.expect("it ends"));
                }
                begun.elapsed()
            })
        });
    });
    c.bench_function("task woken by another", |b| {
        b.iter_custom(|count| timed(ping_pong(count)));
    });
    c.bench_function("turn with one task", |b| {
        b.iter_custom(|count| {
            timed(async move {
                let begun = Instant::now();
                for _ in 0..count {
                    yield_now().await;
                }
                begun.elapsed()
            })
        });
    });
}

/// Two tasks wake each other; the time of one wake and the poll that it leads to.
async fn ping_pong(count: u64) -> Duration {
    let (ping, pong) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
    let other = {
        let (ping, pong) = (Rc::clone(&ping), Rc::clone(&pong));
        spawn(async move {
            loop {
                ping.notified().await;
                pong.notify_one();
            }
        })
    };
    // a task of its own: the root future is woken in another way
    let first = spawn(async move {
        let begun = Instant::now();
        for _ in 0..count.div_ceil(2) {
            let answer = pong.notified();
            ping.notify_one();
            answer.await;
        }
        begun.elapsed()
    });
    let took = first.await.expect("it ends");
    other.abort();
    took
}

fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer set and given up");
    for others in [0_u32, 10_000] {
        group.bench_function(BenchmarkId::new("others", others), |b| {
            b.iter_custom(|count| timed(cancels(count, others)));
        });
    }
    group.finish();
    c.bench_function("timer set and fired, of 200 at once", |b| {
        b.iter_custom(|count| timed(fires(count)));
    });
}

async fn cancels(count: u64, others: u32) -> Duration {
    let others: Vec<_> = (0..others).map(|n| spawn(sleep(HOUR + HOUR * n))).collect();
    yield_now().await;
    let begun = Instant::now();
    for n in 0..count {
        let mut timer = pin!(sleep(HOUR + Duration::from_nanos(n)));
        poll_fn(|cx| {
            assert!(timer.as_mut().poll(cx).is_pending(), "it is an hour");
            Poll::Ready(())
        })
        .await;
    }
    let took = begun.elapsed();
    others.iter().for_each(|other| other.abort());
    took
}

/// Timers that are due when the core looks next: no more than it polls in one turn.
async fn fires(count: u64) -> Duration {
    const AT_ONCE: u64 = 200;
    let (mut took, mut left) = (Duration::ZERO, count);
    while left > 0 {
        let now = left.min(AT_ONCE);
        let all: Vec<_> = (0..now)
            .map(|n| spawn(sleep(Duration::from_millis(2) + Duration::from_nanos(n))))
            .collect();
        // they have set themselves, and are past when this core has its next turn
        let begun = Instant::now();
        yield_now().await;
        took += begun.elapsed();
        while begun.elapsed() < Duration::from_millis(3) {
            std::hint::spin_loop();
        }
        let begun = Instant::now();
        for one in all {
            one.await.expect("it ends");
        }
        took += begun.elapsed();
        left -= now;
    }
    took
}

criterion_group!(benches, mailboxes, tasks, timers);
criterion_main!(benches);
