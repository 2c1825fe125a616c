//! Where ranks on several hosts ask for each other: on a ring and a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;

use ringmill_ring::{ListenOptions, RingConfig, TcpListener, run};

use crate::job::introduce;

/// The launcher's answering thread. It ends with the process.
pub(super) struct Rendezvous {
    address: SocketAddr,
    missing: Mutex<mpsc::Receiver<Vec<usize>>>,
}

impl Rendezvous {
    pub(super) fn start(ranks: usize, cookie: String) -> io::Result<Rendezvous> {
        let (tell_address, address) = mpsc::channel();
        let (tell_missing, missing) = mpsc::channel();
        thread::Builder::new()
            .name("rendezvous".into())
            .spawn(move || {
                let config = RingConfig {
                    pin: false,
                    ..RingConfig::default()
                };
                let served = run(
                    config,
                    serve(ranks, cookie, tell_address.clone(), tell_missing),
                );
                if let Err(error) = served {
                    let _ = tell_address.send(Err(error));
                }
            })?;
        let address = address
            .recv()
            .map_err(|_| io::Error::other("no ring for the launcher"))??;
        Ok(Rendezvous {
            address,
            missing: Mutex::new(missing),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ranks that have not called in time.
    pub(super) fn missing(&self) -> Option<Vec<usize>> {
        self.missing.lock().ok()?.try_recv().ok()
    }
}

async fn serve(
    ranks: usize,
    cookie: String,
    tell_address: mpsc::Sender<io::Result<SocketAddr>>,
    tell_missing: mpsc::Sender<Vec<usize>>,
) {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = match TcpListener::bind(local, ListenOptions::default()).await {
        Ok(listener) => listener,
        Err(error) => return tell_address.send(Err(error)).unwrap_or_default(),
    };
    tell_address.send(listener.local_addr()).unwrap_or_default();
    match introduce(&listener, ranks, &cookie).await {
        // They stay open as long as the job lives.
        Ok(_streams) => std::future::pending().await,
        Err(missing) => tell_missing.send(missing).unwrap_or_default(),
    }
}
