//! Wake-ups that come from elsewhere: plain threads, other cores, after the end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{
    Cores, ListenOptions, RingConfig, TcpListener, TcpStream, run, sleep, spawn, timeout,
};

use super::{any, echo, ring};

/// A counter that any thread moves on and a task waits for.
#[derive(Default)]
struct Signal {
    count: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Signal {
    fn advance(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        let waker = self.waker.lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn reached(&self, goal: u64) {
        std::future::poll_fn(|cx| {
            *self.waker.lock().unwrap() = Some(cx.waker().clone());
            match self.count.load(Ordering::SeqCst) >= goal {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// The core is falling asleep, asleep, or waking when the thread calls, over and over.
fn called_by_a_thread(spin: Duration) {
    const CALLS: u64 = 3_000;
    let (signal, answer) = (Arc::new(Signal::default()), Arc::new(AtomicU64::new(0)));
    let thread = {
        let (signal, answer) = (signal.clone(), answer.clone());
        std::thread::spawn(move || {
            for call in 0..CALLS {
                while answer.load(Ordering::Acquire) < call {
                    std::hint::spin_loop();
                }
                for _ in 0..(call * 37 % 1_000) {
                    std::hint::spin_loop();
                }
                signal.advance();
            }
        })
    };
    let config = RingConfig {
        spin,
        pin: false,
        ..RingConfig::default()
    };
    run(config, async {
        for call in 0..CALLS {
            // The time-out is a timer of the core's: it wakes by itself and finds the loss.
            let called = timeout(Duration::from_secs(10), signal.reached(call + 1)).await;
            assert!(called.is_ok(), "call {call} was not heard");
            answer.store(call + 1, Ordering::Release);
        }
    })
    .unwrap();
    thread.join().unwrap();
}

#[test]
fn a_plain_thread_wakes_a_core_at_any_moment() {
    called_by_a_thread(Duration::ZERO);
    called_by_a_thread(Duration::from_micros(20));
}

#[test]
fn a_waker_called_after_its_core_ended_does_nothing() {
    let signal = Arc::new(Signal::default());
    let waiting = signal.clone();
    ring(async move {
        spawn(async move { waiting.reached(1).await });
        sleep(Duration::from_millis(1)).await;
    });
    assert!(signal.waker.lock().unwrap().is_some());
    signal.advance();
    // Also within another core of the same thread.
    let waiting = signal.clone();
    ring(async move {
        spawn(async move { waiting.reached(9).await });
        sleep(Duration::from_millis(1)).await;
    });
    ring(async {
        signal.advance();
        sleep(Duration::from_millis(1)).await;
    });
}

/// Each core serves until one of them is told to stop; then all end, connections are closed and
/// nobody is left waiting.
#[test]
fn cores_stop_together_when_told_to() {
    let cores = Cores::new(3);
    let ports: Vec<_> = cores.mesh::<()>(1).into_iter().map(Some).collect();
    let ports = Mutex::new(ports);
    let stop = Arc::new(Signal::default());
    let (told, addrs) = std::sync::mpsc::channel();
    let config = RingConfig {
        pin: false,
        ..RingConfig::default()
    };
    let asked = stop.clone();
    let running = cores.launch(config, move |id| {
        let port = ports.lock().unwrap()[id].take().unwrap();
        let (asked, told) = (asked.clone(), told.clone());
        async move {
            let listener = TcpListener::bind(any(), ListenOptions::default())
                .await
                .unwrap();
            told.send(listener.local_addr().unwrap()).unwrap();
            let accepting = spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    spawn(echo(stream));
                }
            });
            // A core that has stopped already takes no more messages, and holds nobody up.
            if id == 0 {
                asked.reached(1).await;
                for core in [1, 2, 1, 2, 1, 2] {
                    port.send(core, ()).await;
                }
            } else {
                port.recv().await;
            }
            accepting.abort();
        }
    });
    let addrs: Vec<_> = (0..3).map(|_| addrs.recv().unwrap()).collect();
    ring(async {
        let mut clients = Vec::new();
        for addr in addrs {
            let client = TcpStream::connect(addr).await.unwrap();
            client.send(vec![Bytes::from_static(b"x")]).await.unwrap();
            client.recv(&mut BytesMut::new()).await.unwrap();
            clients.push(client);
        }
        stop.advance();
        for client in clients {
            let end = timeout(Duration::from_secs(10), client.recv(&mut BytesMut::new())).await;
            assert!(end.expect("still open").map_or(true, |count| count == 0));
        }
    });
    running.unwrap().join().unwrap();
}
