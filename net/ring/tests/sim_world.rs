//! The simulated world from outside: clocks, processes, kills, pauses, and one story per seed.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::sim::{Chance, Latency, NodeId, TimeIsOver, World};
use ringmill_ring::{
    Cores, File, ListenOptions, Notify, OpenOptions, RingConfig, TcpListener, TcpStream, core_id,
    now, random_u64, sleep, spawn, timeout, wall_clock_ms, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);

fn two_nodes(seed: u64) -> (World, NodeId, NodeId) {
    let mut world = World::new(seed);
    let a = world.add_node("a", "10.0.0.1".parse().unwrap());
    let b = world.add_node("b", "10.0.0.2".parse().unwrap());
    (world, a, b)
}

fn on_a(port: u16) -> SocketAddr {
    SocketAddr::new("10.0.0.1".parse().unwrap(), port)
}

/// Echoes what each connection sends, for ever.
async fn echo(port: u16) {
    let addr = SocketAddr::new("0.0.0.0".parse().unwrap(), port);
    let listener = TcpListener::bind(addr, ListenOptions::default())
        .await
        .unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        spawn(async move {
            let mut buf = BytesMut::new();
            while let Ok(1..) = stream.recv(&mut buf).await {
                if stream.send(vec![buf.split().freeze()]).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Sends `count` messages and reads each back while it is still sending, as socket buffers
/// that are full in both directions demand; the number of those that came back whole.
async fn converse(count: u32) -> u32 {
    let Ok(stream) = TcpStream::connect(on_a(7)).await else {
        return 0;
    };
    for number in 0..count {
        let message = Bytes::from(vec![number as u8; (random_u64() % 3000 + 1) as usize]);
        let sending = spawn({
            let (stream, message) = (stream.clone(), message.clone());
            async move { stream.send(vec![message]).await }
        });
        let mut buf = BytesMut::new();
        while buf.len() < message.len() {
            match stream.recv(&mut buf).await {
                Ok(1..) => {}
                _ => return number,
            }
        }
        assert_eq!(buf, message);
        sending
            .await
            .expect("not aborted")
            .expect("all of it was echoed");
    }
    count
}

#[test]
fn a_conversation_goes_through_pieces_and_delays() {
    let mut sum = 0;
    for seed in 0..200 {
        let (mut world, a, b) = two_nodes(seed);
        if seed % 2 == 1 {
            world.swarm();
        }
        world.start(a, echo(7));
        sum += world.block_on(b, converse(20));
        if seed % 2 == 0 {
            assert_eq!(sum % 20, 0, "seed {seed}: nothing goes wrong here");
        }
        sum -= sum % 20;
        world.kill(a);
        assert_eq!(
            (world.descriptors(a), world.operations(a)),
            (0, 0),
            "seed {seed}"
        );
        assert_eq!(
            (world.descriptors(b), world.operations(b)),
            (0, 0),
            "seed {seed}"
        );
    }
    assert!(sum > 100 * 20);
}

fn story(seed: u64) -> (u64, u64) {
    let (mut world, a, b) = two_nodes(seed);
    world.swarm();
    world.start(a, echo(7));
    world.block_on(b, converse(10));
    (world.trace_hash(), world.events())
}

#[test]
fn one_seed_tells_one_story() {
    for seed in 0..50 {
        assert_eq!(story(seed), story(seed), "seed {seed}");
        assert_ne!(story(seed).0, story(seed + 1).0, "seed {seed}");
    }
}

#[test]
fn content_is_part_of_the_story() {
    let tell = |byte: u8| {
        let (mut world, a, _) = two_nodes(1);
        world.block_on(a, async move {
            let options = OpenOptions::new().write(true).create(true);
            let file = File::open("/f", options).await.unwrap();
            file.write_at(0, vec![Bytes::from(vec![byte; 10])])
                .await
                .unwrap();
        });
        world.trace_hash()
    };
    assert_eq!(tell(1), tell(1));
    assert_ne!(tell(1), tell(2));
}

#[test]
fn time_passes_only_when_all_wait() {
    let (mut world, a, b) = two_nodes(5);
    let order = Rc::new(RefCell::new(Vec::new()));
    for (node, seconds) in [(a, 3), (b, 2)] {
        let order = order.clone();
        world.start(node, async move {
            let begun = now();
            sleep(SECOND * seconds).await;
            assert!(now() - begun >= SECOND * seconds);
            order.borrow_mut().push(seconds);
        });
    }
    world.run_until_idle(10 * SECOND).unwrap();
    assert_eq!(*order.borrow(), [2, 3]);
    // Clocks drift by at most 100 parts in a million.
    assert!((world.now().as_secs_f64() - 3.0).abs() < 0.001);
    world.run_for(SECOND);
    assert!(world.now() > 3 * SECOND + SECOND / 2);
    assert_eq!(
        world.run_until(SECOND, |_| false),
        Err(TimeIsOver),
        "nothing more happens"
    );
}

#[test]
fn wall_clocks_jump_and_monotonic_ones_do_not() {
    let (mut world, a, _) = two_nodes(5);
    let noted = Rc::new(RefCell::new(Vec::new()));
    let kept = noted.clone();
    world.start(a, async move {
        for _ in 0..2 {
            kept.borrow_mut().push((now(), wall_clock_ms()));
            sleep(SECOND).await;
        }
    });
    world.run_for(SECOND / 2);
    world.jump_wall_clock(a, -3_600_000);
    world.run_until_idle(10 * SECOND).unwrap();
    let noted = noted.borrow();
    assert!(noted[1].0 - noted[0].0 >= SECOND);
    let jumped_ms = noted[1].1 - noted[0].1;
    assert!((jumped_ms + 3_600_000 - 1000).abs() < 10, "{jumped_ms}");
}

#[test]
fn a_program_that_spins_is_stopped_with_its_seed() {
    let (mut world, a, _) = two_nodes(5);
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        world.block_on(a, async {
            let deadline = now() + SECOND;
            while now() < deadline {
                yield_now().await;
            }
        });
    }));
    let message = *stopped
        .unwrap_err()
        .downcast::<String>()
        .expect("a panic with words");
    assert!(message.contains("a program spins"), "{message}");
}

#[test]
fn a_future_that_never_ends_is_not_waited_for_in_vain() {
    let (mut world, a, _) = two_nodes(5);
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        world.block_on(a, std::future::pending::<()>())
    }));
    assert!(stopped.is_err());
}

#[test]
fn cores_of_a_process_talk_and_take_turns() {
    let orders: Vec<Vec<usize>> = (0..20)
        .map(|seed| {
            let (mut world, a, _) = two_nodes(seed);
            let cores = Cores::new(3);
            let ports: Vec<_> = cores.mesh::<u64>(2).into_iter().map(Some).collect();
            let (ports, order) = (RefCell::new(ports), Rc::new(RefCell::new(Vec::new())));
            let kept = order.clone();
            let outputs = world.launch(a, cores, RingConfig::default(), move |core| {
                let port = ports.borrow_mut()[core]
                    .take()
                    .expect("one port for each core");
                let order = kept.clone();
                async move {
                    assert_eq!(core_id(), core);
                    let port = Rc::new(port);
                    let sender = port.clone();
                    let sending = spawn(async move {
                        for message in 0..30 {
                            sender.send((core + 1) % 3, message).await;
                        }
                    });
                    let mut sum = 0;
                    for _ in 0..30 {
                        let (from, message) = port.recv().await;
                        assert_eq!(from, (core + 2) % 3);
                        order.borrow_mut().push(core);
                        sum += message;
                    }
                    sending.await.unwrap();
                    sum
                }
            });
            world.run_until_idle(SECOND).unwrap();
            assert_eq!(outputs.take(), [435, 435, 435], "seed {seed}");
            assert!(!world.is_running(a));
            order.take()
        })
        .collect();
    assert!(
        orders.iter().any(|order| *order != orders[0]),
        "the seed orders the cores"
    );
}

#[test]
fn a_core_without_a_processor_is_late() {
    let (mut world, a, _) = two_nodes(5);
    world.cpu().stall = Chance::Always;
    world.cpu().stall_time = Latency::between(SECOND, SECOND);
    let begun = world.now();
    // Two turns: to begin, and to see the timer.
    world.run_for(Duration::ZERO);
    world.start(a, async { sleep(SECOND / 2).await });
    world.run_for(SECOND / 2);
    world.cpu().stall = Chance::Never;
    world
        .run_until(5 * SECOND, |world| !world.is_running(a))
        .unwrap();
    let took = world.now() - begun;
    assert!(took > SECOND + SECOND / 3 && took < 2 * SECOND, "{took:?}");
}

#[test]
fn a_kill_takes_the_memory_and_leaves_the_page_cache() {
    let (mut world, a, _) = two_nodes(5);
    struct Memory(Rc<Cell<bool>>);
    impl Drop for Memory {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let freed = Rc::new(Cell::new(false));
    let memory = Memory(freed.clone());
    world.start(a, async move {
        let _memory = memory;
        let options = OpenOptions::new().write(true).create(true);
        let file = File::open("/f", options).await.unwrap();
        assert!(file.try_lock_exclusive().unwrap());
        file.write_at(0, vec![Bytes::from_static(b"unflushed")])
            .await
            .unwrap();
        sleep(1000 * SECOND).await;
    });
    world.run_for(SECOND);
    assert_eq!((world.is_running(a), world.descriptors(a)), (true, 1));
    world.kill(a);
    assert!(freed.get());
    assert_eq!((world.is_running(a), world.descriptors(a)), (false, 0));
    world.block_on(a, async {
        let file = File::open("/f", OpenOptions::new().read(true))
            .await
            .unwrap();
        assert!(file.try_lock_exclusive().unwrap(), "the dead hold no locks");
        assert_eq!(file.read_at(0, 100).await.unwrap(), "unflushed");
        let again = File::open("/f", OpenOptions::new().read(true))
            .await
            .unwrap();
        assert!(!again.try_lock_exclusive().unwrap());
        drop(file);
        assert!(again.try_lock_exclusive().unwrap());
    });
}

#[test]
fn what_is_in_flight_at_a_kill_happens_or_not() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let (mut world, a, _) = two_nodes(seed);
        world.disk(a).put("/f", "");
        world.start(a, async {
            let file = File::open("/f", OpenOptions::new().write(true))
                .await
                .unwrap();
            loop {
                file.write_at(0, vec![Bytes::from(vec![1; 1000])])
                    .await
                    .unwrap();
                file.set_len(0).await.unwrap();
            }
        });
        world.run_for(Duration::from_millis(5));
        world.kill(a);
        lengths.insert(world.disk(a).read("/f").unwrap().len());
    }
    assert!(lengths.contains(&0) && lengths.contains(&1000));
    assert!(lengths.len() > 5, "writes that were cut short: {lengths:?}");
}

#[test]
fn a_stopped_process_still_accepts_connections_and_answers_later() {
    let (mut world, a, b) = two_nodes(5);
    world.start(a, echo(7));
    world.run_for(SECOND);
    world.pause(a);
    let answered = Rc::new(Cell::new(false));
    let noted = answered.clone();
    world.start(b, async move {
        let stream = TcpStream::connect(on_a(7))
            .await
            .expect("the kernel accepts");
        stream
            .send(vec![Bytes::from_static(b"hello")])
            .await
            .expect("the kernel receives");
        let mut buf = BytesMut::new();
        let early = timeout(10 * SECOND, stream.recv(&mut buf)).await;
        assert!(early.is_err(), "nobody is there to answer");
        while buf.len() < 5 {
            stream.recv(&mut buf).await.unwrap();
        }
        noted.set(true);
    });
    world.run_for(20 * SECOND);
    assert!(!answered.get());
    world.resume(a);
    world.run_until(SECOND, |_| answered.get()).unwrap();
}

#[test]
fn descriptors_run_out_and_come_back() {
    let (mut world, a, b) = two_nodes(5);
    world.limit_descriptors(a, 4);
    let served = Rc::new(Cell::new(0));
    let refused = Rc::new(Cell::new(0));
    let (counted, failed) = (served.clone(), refused.clone());
    world.start(a, async move {
        let options = ListenOptions::default();
        let listener = TcpListener::bind(on_a(7), options).await.unwrap();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    counted.set(counted.get() + 1);
                    spawn(async move {
                        let mut buf = BytesMut::new();
                        while let Ok(1..) = stream.recv(&mut buf).await {}
                    });
                }
                Err(e) => {
                    assert_eq!(e.raw_os_error(), Some(24), "EMFILE");
                    failed.set(failed.get() + 1);
                    sleep(SECOND / 10).await;
                }
            }
        }
    });
    world.block_on(b, async {
        let mut streams = Vec::new();
        for _ in 0..6 {
            streams.push(
                TcpStream::connect(on_a(7))
                    .await
                    .expect("it waits in the queue"),
            );
        }
        sleep(SECOND).await;
    });
    world.run_for(5 * SECOND);
    assert!(refused.get() > 0);
    assert_eq!(served.get(), 6, "those that waited were served in the end");
    assert_eq!(world.descriptors(a), 1, "the listener");
}

#[test]
fn a_process_that_ends_lets_go_of_all() {
    let (mut world, a, b) = two_nodes(5);
    world.start(a, echo(7));
    let stream_of_nobody = Rc::new(RefCell::new(None));
    let kept = stream_of_nobody.clone();
    world.block_on(b, async move {
        let stream = TcpStream::connect(on_a(7)).await.unwrap();
        let reader = stream.clone();
        spawn(async move {
            let mut buf = BytesMut::new();
            let _ = reader.recv(&mut buf).await;
        });
        let notify = Rc::new(Notify::new());
        let waits = notify.clone();
        spawn(async move { waits.notified().await });
        yield_now().await;
        // Even a handle that outlives its process.
        *kept.borrow_mut() = Some(stream);
    });
    assert_eq!((world.descriptors(b), world.operations(b)), (0, 0));
    world.run_for(SECOND);
    assert_eq!(
        world.descriptors(a),
        1,
        "the listener: the connection has ended"
    );
    drop(world);
    drop(stream_of_nobody.take());
}
