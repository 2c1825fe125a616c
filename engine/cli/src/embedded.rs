//! A node within this process, for the demo: the broker on threads of its own, on a folder of its
//! own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;

use ringmill_engine::config::BrokerConfig;
use ringmill_engine::{Stopper, serve};
use ringmill_ring::RingConfig;

use crate::Failure;

/// A node that runs. Dropping it stops the node, and removes its folder if that was temporary.
pub(crate) struct Embedded {
    address: SocketAddr,
    data: PathBuf,
    is_temporary: bool,
    stopper: Stopper,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            // a node that panicked has said so
            let _ = thread.join();
        }
        if self.is_temporary
            && let Err(error) = std::fs::remove_dir_all(&self.data)
        {
            eprintln!("ringmill: cannot remove {}: {error}", self.data.display());
        }
    }
}

impl Embedded {
    /// Starts a node with these settings, on `data` or on a fresh folder, and waits until it
    /// accepts clients.
    pub(crate) fn start(
        listen: &str,
        data: Option<&Path>,
        settings: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let fresh = std::env::temp_dir().join(format!("ringmill-demo-{}", std::process::id()));
        let folder = data.map_or(fresh, Path::to_owned);
        let shown = folder.display().to_string();
        let mut pairs = vec![("listeners", listen), ("log.dirs", &shown)];
        pairs.extend(settings);
        let owned = pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = BrokerConfig::from_pairs(owned).map_err(Failure::new)?;
        let stopper = Stopper::new();
        let (tell, told) = channel();
        let (ready, ended, stop) = (tell.clone(), tell, stopper.clone());
        let body = move || {
            let served = serve(config, RingConfig::default(), stop, move |address| {
                // the starter may have gone
                let _ = ready.send(Ok(address));
            });
            if let Err(error) = served {
                let _ = ended.send(Err(error.to_string()));
            }
        };
        let thread = thread::Builder::new().name("node".into()).spawn(body);
        let mut node = Self {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            data: folder,
            is_temporary: data.is_none(),
            stopper,
            thread: Some(thread.map_err(Failure::new)?),
        };
        match told.recv() {
            Ok(Ok(address)) => node.address = address,
            Ok(Err(cause)) => return Err(Failure(cause)),
            Err(_) => return Err(Failure::new("the node ended before it was ready")),
        }
        Ok(node)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its data is, and whether that stays.
    pub(crate) fn data(&self) -> (&Path, bool) {
        (&self.data, !self.is_temporary)
    }
}
