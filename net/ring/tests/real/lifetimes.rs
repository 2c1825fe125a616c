//! What outlives what: rings, cores, tasks, files, sockets and their buffers.

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    Cores, File, JoinHandle, ListenOptions, OpenOptions, RingConfig, TcpListener, now, sleep,
    spawn, yield_now,
};

use super::{any, folder, ring};

fn read_write() -> OpenOptions {
    OpenOptions::new().read(true).write(true).create(true)
}

/// Both rings have a table of registered files, and both files have its first place.
#[test]
fn a_file_of_an_ended_ring_is_not_mistaken_for_another() {
    let dir = folder("ended");
    let first = ring(File::open(dir.join("first"), read_write())).unwrap();
    ring(async {
        let second = File::open(dir.join("second"), read_write()).await.unwrap();
        first
            .write_at(0, vec![Bytes::from_static(b"for the first")])
            .await
            .unwrap();
        assert_eq!(second.len().await.unwrap(), 0);
        assert_eq!(first.read_at(0, 100).await.unwrap(), "for the first");
    });
}

/// A plain socket whose read fails rather than waits for ever.
fn plain_client(addr: std::net::SocketAddr) -> std::net::TcpStream {
    let client = std::net::TcpStream::connect(addr).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client
}

/// The future of `run` panics in a task that waits beside others: the panic reaches the caller,
/// and everything the core had is closed on the way.
#[test]
fn a_panic_in_a_task_closes_what_the_core_had() {
    let mut client = None;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        ring(async {
            let listener = TcpListener::bind(any(), ListenOptions::default())
                .await
                .unwrap();
            client = Some(plain_client(listener.local_addr().unwrap()));
            let (stream, _) = listener.accept().await.unwrap();
            spawn(async move { stream.recv(&mut BytesMut::new()).await });
            spawn(async {
                sleep(Duration::from_millis(5)).await;
                panic!("a task's own fault");
            });
            listener.accept().await.unwrap();
        })
    }));
    let cause = panicked.unwrap_err();
    assert_eq!(
        cause.downcast_ref::<&str>(),
        Some(&"a task's own fault"),
        "the caller sees the task's panic"
    );
    // An end of stream or a reset, but not silence.
    let read = client.unwrap().read(&mut [0; 1]);
    assert!(
        !matches!(&read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock),
        "the connection is still open: {read:?}"
    );
}

#[test]
fn a_core_that_panics_is_reported_while_the_others_run() {
    let config = RingConfig {
        pin: false,
        ..RingConfig::default()
    };
    let (told, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let running = Cores::new(2).launch(config, |id| async move {
            if id == 1 {
                panic!("core one's own fault");
            }
            std::future::pending::<()>().await
        });
        let joined = catch_unwind(AssertUnwindSafe(|| running.unwrap().join()));
        told.send(joined.is_err()).unwrap();
    });
    assert_eq!(hear.recv_timeout(Duration::from_secs(10)), Ok(true));
}

/// All kinds of operations that wait are in the kernel when `run` ends; their descriptors are
/// closed with the ring, and no buffer is touched afterwards (the peers go on writing).
#[test]
fn a_ring_that_ends_with_operations_in_flight_closes_them() {
    let mut clients = Vec::new();
    ring(async {
        let listener = TcpListener::bind(any(), ListenOptions::default())
            .await
            .unwrap();
        for _ in 0..20 {
            clients.push(plain_client(listener.local_addr().unwrap()));
            let (stream, _) = listener.accept().await.unwrap();
            let sending = stream.clone();
            spawn(async move { sending.send(vec![Bytes::from(vec![1; 64 << 20])]).await });
            spawn(async move {
                let mut buf = BytesMut::new();
                while stream.recv(&mut buf).await.unwrap_or(0) > 0 {}
            });
        }
        spawn(async move { listener.accept().await.map(drop) });
        sleep(Duration::from_millis(20)).await;
    });
    for mut client in clients {
        let _ = std::io::Write::write(&mut client, &[7; 1 << 16]);
        let mut rest = Vec::new();
        let end = client.read_to_end(&mut rest);
        assert!(
            !matches!(&end, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock),
            "the connection is still open"
        );
        assert!(rest.iter().all(|byte| *byte == 1));
    }
}

#[test]
fn a_task_that_aborts_itself_ends_at_its_next_await() {
    ring(async {
        let handle: Rc<RefCell<Option<JoinHandle<()>>>> = Rc::default();
        let reached = Rc::new(Cell::new(0));
        let (own, count) = (handle.clone(), reached.clone());
        let task = spawn(async move {
            own.borrow().as_ref().unwrap().abort();
            count.set(1);
            sleep(Duration::from_millis(1)).await;
            count.set(2);
        });
        *handle.borrow_mut() = Some(task);
        while !handle.borrow().as_ref().unwrap().is_finished() {
            sleep(Duration::from_millis(1)).await;
            assert_ne!(reached.get(), 2, "the task went on after its abort");
        }
        assert_eq!(reached.get(), 1);
        let task = handle.borrow_mut().take().unwrap();
        assert!(task.await.is_err());
    });
}

/// A task that waits by yielding must let completions come in between: each yield is a turn,
/// and each turn reads the clock.
#[test]
fn a_yield_lets_the_ring_have_its_turn() {
    ring(async {
        for _ in 0..100 {
            let before = now();
            yield_now().await;
            assert!(now() > before);
        }
    });
}

#[test]
fn positions_past_the_end_of_any_file_are_refused() {
    let dir = folder("positions");
    ring(async {
        let file = File::open(dir.join("f"), read_write()).await.unwrap();
        let word = || vec![Bytes::from_static(b"word")];
        file.write_at(0, word()).await.unwrap();
        for offset in [u64::MAX, u64::MAX - 3, i64::MAX as u64, 1 << 63] {
            let written = file
                .write_at(offset, vec![Bytes::from_static(b"lost")])
                .await;
            assert_eq!(
                written.unwrap_err().kind(),
                std::io::ErrorKind::InvalidInput
            );
            let read = file.read_at(offset, 4).await;
            assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        }
        assert_eq!(file.read_at(0, 100).await.unwrap(), "word");
    });
}

/// Cores tell each other when: what one calls now must not lie in another's past or future.
#[test]
fn all_cores_have_one_clock() {
    let before = ring(async { now() });
    std::thread::sleep(Duration::from_millis(30));
    let after = ring(async { now() });
    assert!(after - before >= Duration::from_millis(30));
}

/// The next life of a process, or the next test, takes the address over at once.
#[test]
fn an_ended_ring_has_let_go_of_its_addresses_and_locks() {
    let dir = folder("let-go");
    let mut addr = any();
    for round in 0..50 {
        ring(async {
            let bound = TcpListener::bind(addr, ListenOptions::default()).await;
            let listener = bound.unwrap_or_else(|e| panic!("round {round}: {e}"));
            addr = listener.local_addr().unwrap();
            let file = File::open(dir.join("lock"), read_write()).await.unwrap();
            assert!(
                file.try_lock_exclusive().unwrap(),
                "round {round}: still locked"
            );
            spawn(async move {
                let _file = file;
                listener.accept().await.map(drop)
            });
            sleep(Duration::from_micros(round * 20)).await;
        });
    }
}

/// A server with a connection for each task must not take longer to stop than to serve.
#[test]
fn a_core_of_many_tasks_ends_at_once() {
    let mut begun = std::time::Instant::now();
    ring(async {
        for _ in 0..50_000 {
            spawn(std::future::pending::<()>());
        }
        sleep(Duration::from_millis(1)).await;
        begun = std::time::Instant::now();
    });
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// A future whose drop panics ends the core as any panic does.
#[test]
fn a_panic_in_a_drop_at_the_end_still_closes_the_ring() {
    struct Explosive;
    impl Drop for Explosive {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let mut client = None;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        ring(async {
            spawn(async {
                let _explosive = Explosive;
                std::future::pending::<()>().await
            });
            let listener = TcpListener::bind(any(), ListenOptions::default())
                .await
                .unwrap();
            client = Some(plain_client(listener.local_addr().unwrap()));
            let (stream, _) = listener.accept().await.unwrap();
            spawn(async move { stream.recv(&mut BytesMut::new()).await });
            sleep(Duration::from_millis(1)).await;
        })
    }));
    assert!(ended.is_err());
    let read = client.unwrap().read(&mut [0; 1]);
    assert!(
        !matches!(&read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock),
        "the connection is still open: {read:?}"
    );
}
