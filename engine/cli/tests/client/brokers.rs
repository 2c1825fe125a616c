//! The brokers under test: our own node for the length of a test, and Apache Kafka if there is one.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmill_client::Transport;
use ringmill_tests::node::Node;

/// Names an Apache Kafka broker, `HOST:PORT`.
const KAFKA: &str = "RINGMILL_TEST_KAFKA";

/// Our node's settings: groups of the consumer protocol change with their members' heartbeats, which
/// are quicker than by default.
const SETTINGS: &[&str] = &[
    "--cores=1",
    "--group-consumer-min-heartbeat-interval-ms=200",
    "--group-consumer-heartbeat-interval-ms=200",
];

/// One broker, one transport.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) bootstrap: String,
    pub(crate) transport: Transport,
}

struct Fixture {
    node: Node,
    folder: PathBuf,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Fixture {
    fn new(name: &str) -> Self {
        let folder =
            std::env::temp_dir().join(format!("ringmill-client-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_ringmill"));
        let node = Node::start(binary, &folder.join("data"), SETTINGS).unwrap();
        Self { node, folder }
    }
}

/// Runs `test` against each broker there is, by each transport.
pub(crate) fn everywhere<F: Future<Output = ()>>(name: &str, test: impl Fn(Setting) -> F) {
    ours(name, &test);
    kafka(name, test);
}

/// Runs `test` against our own node alone.
pub(crate) fn ours<F: Future<Output = ()>>(name: &str, test: impl Fn(Setting) -> F) {
    let fixture = Fixture::new(name);
    for transport in [Transport::Auto, Transport::Sockets] {
        wait(test(Setting {
            bootstrap: fixture.node.addr().to_string(),
            transport,
        }));
    }
}

/// Runs `test` against Apache Kafka, if there is one.
pub(crate) fn kafka<F: Future<Output = ()>>(name: &str, test: impl Fn(Setting) -> F) {
    let Ok(bootstrap) = std::env::var(KAFKA) else {
        println!("{name}: not run against Apache Kafka: set {KAFKA}=HOST:PORT");
        return;
    };
    for transport in [Transport::Auto, Transport::Sockets] {
        wait(test(Setting {
            bootstrap: bootstrap.clone(),
            transport,
        }));
    }
}

/// A name that no other test or run uses.
pub(crate) fn fresh(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{next}", now.as_micros())
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// No runtime of any kind: the client must not need one.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let started = std::time::Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park_timeout(Duration::from_secs(1));
        assert!(started.elapsed() < Duration::from_secs(120), "it hangs");
    }
}
