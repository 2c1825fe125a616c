//! One rank with its ways to the others: shared memory on its host, the ring's TCP beyond it, and
//! a queue to itself. It carries frames between them and the engine, and knows how to wait.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringmill_ring::{Driven, RingConfig, TcpStream};
use thiserror::Error;

use crate::buffer::Buffer;
use crate::engine::{Engine, Outlet, Payload};
use crate::job::{Job, JobError};
use crate::shm::{self, Life, Reader, Region, Writer};
use crate::tcp::{self, End, Mesh};
use crate::wire::{Header, Kind, Violation};

/// Messages up to this travel whole through shared memory.
const EAGER_MEMORY: usize = 16 << 10;
/// From here on, a receiver on the same host copies out of the sender's memory.
const FETCH_MIN: usize = 32 << 10;
/// Pieces of long messages through shared memory.
const PIECE_MEMORY: usize = 8 << 10;
/// Messages up to this go whole to oneself.
const EAGER_SELF: usize = 64 << 10;
/// Frames that are taken from one peer before it is another's turn.
const FRAMES_AT_ONCE: usize = 32;

/// Fruitless looks around before others are let run: few, for who is waited for may be among
/// them. Then so many more before a sleep, from which it takes long to wake.
const SPINS: u32 = 1_000;
const SPINS_CROWDED: u32 = 40;
const YIELDS: u32 = 4_000;
/// A sleep ends after this at the latest: see [`Region::sleep`].
const SLEEP: Duration = Duration::from_millis(1);
/// The same where two kinds of peers are to be watched.
const SLEEP_MIXED: Duration = Duration::from_micros(100);

/// The job cannot go on.
#[derive(Debug, Error)]
pub enum Broken {
    /// A peer is gone.
    #[error("rank {0} is gone: its connection ended without a goodbye")]
    Lost(u32),
    /// A peer said what no honest peer says.
    #[error("rank {0} sent {1}")]
    Violation(u32, Violation),
    /// The ring failed.
    #[error("the ring failed: {0}")]
    Ring(#[from] io::Error),
}

/// How a rank reaches another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Oneself,
    /// By its place in the host's memory.
    Memory(usize),
    Connection,
}

/// Ranks of one host.
#[derive(Debug)]
struct Host {
    region: Rc<Region>,
    /// The own place.
    place: usize,
    /// The rank at each other place, and the ring from there.
    readers: Vec<(u32, Reader)>,
    /// By place.
    writers: Vec<Writer>,
    fetches: bool,
}

/// Ranks on other hosts. Tasks of the mesh end before the ring does.
#[derive(Debug)]
struct Far {
    mesh: Mesh,
    /// Closes with the job.
    _launcher: TcpStream,
    ring: Driven,
    /// A turn was taken, and nobody has looked at what it brought.
    turned: Cell<bool>,
}

/// All ways of a rank.
#[derive(Debug)]
pub struct Ways {
    rank: u32,
    routes: Vec<Route>,
    host: Option<Host>,
    far: Option<Far>,
    oneself: VecDeque<(Header, Vec<u8>)>,
    crowded: bool,
}

/// How long nothing has happened.
#[derive(Debug, Default)]
pub struct Idle(u32);

/// A rank: its messages and its ways.
#[derive(Debug)]
pub struct Endpoint<B> {
    /// Its messages.
    pub engine: Engine<B>,
    /// Its ways.
    pub ways: Ways,
}

impl<B: Buffer> Endpoint<B> {
    /// Joins a job.
    ///
    /// # Errors
    /// If the shared memory, the launcher or another rank cannot be reached.
    pub fn join(job: &Job) -> Result<Endpoint<B>, JobError> {
        Ok(Endpoint {
            engine: Engine::new(job.size()),
            ways: Ways::join(job)?,
        })
    }

    /// Moves what can be moved; true if something came.
    ///
    /// # Errors
    /// If the job cannot go on.
    #[inline]
    pub fn progress(&mut self) -> Result<bool, Broken> {
        let engine = &mut self.engine;
        let moved = self
            .ways
            .poll(|peer, header, payload| engine.on_frame(peer, header, payload))?;
        if !self.engine.is_flushed() {
            self.engine.flush(&mut self.ways);
        }
        Ok(moved)
    }

    /// Waits a moment after a [`Endpoint::progress`] in vain: longer and longer.
    ///
    /// # Errors
    /// If the ring fails.
    pub fn pause(&mut self, idle: &mut Idle) -> Result<(), Broken> {
        // What could not leave for lack of room is not announced when there is some.
        let may_sleep = self.engine.is_flushed();
        Ok(self.ways.pause(idle, may_sleep)?)
    }

    /// Leaves the job: everything has left, and the peers know.
    ///
    /// # Errors
    /// If the job broke meanwhile.
    pub fn leave(&mut self) -> Result<(), Broken> {
        let mut idle = Idle::default();
        while !(self.engine.is_flushed() && self.ways.is_flushed()) {
            if !self.progress()? {
                self.pause(&mut idle)?;
            }
        }
        self.ways.leave()
    }
}

impl Ways {
    fn join(job: &Job) -> Result<Ways, JobError> {
        if let Some(processor) = job.processor {
            shm::bind_to(processor);
        }
        let near = job.near();
        let routes = (0..job.size()).map(|rank| match near.iter().position(|at| *at == rank) {
            _ if rank == job.rank => Route::Oneself,
            Some(place) => Route::Memory(place),
            None => Route::Connection,
        });
        let routes: Vec<Route> = routes.collect();
        let host = match &job.memory {
            Some(path) => Some(Host::open(path, &near, job.rank)?),
            None if near.len() > 1 => return Err(JobError::Variable(crate::job::MEMORY)),
            None => None,
        };
        let far = match routes.contains(&Route::Connection) {
            true => Some(Far::connect(job)?),
            false => None,
        };
        let crowded = job.processor.is_none() && near.len() > shm::processors();
        Ok(Ways {
            rank: job.rank,
            routes,
            host,
            far,
            oneself: VecDeque::new(),
            crowded,
        })
    }

    /// Whether another thread than the one that joined may use it.
    pub fn is_bound_to_its_thread(&self) -> bool {
        self.far.is_some()
    }

    /// Takes frames from all peers.
    #[inline]
    fn poll(
        &mut self,
        mut on_frame: impl FnMut(u32, &Header, &[u8]) -> Result<(), Violation>,
    ) -> Result<bool, Broken> {
        let mut moved = false;
        if let Some(host) = &mut self.host {
            for (peer, reader) in &mut host.readers {
                for _ in 0..FRAMES_AT_ONCE {
                    let took = reader.pop(|header, payload| on_frame(*peer, header, payload));
                    match took {
                        Ok(None) => break,
                        Ok(Some(())) => moved = true,
                        Err(violation) => return Err(Broken::Violation(*peer, violation)),
                    }
                }
            }
        }
        while let Some((header, payload)) = self.oneself.pop_front() {
            moved = true;
            on_frame(self.rank, &header, &payload).map_err(|v| Broken::Violation(self.rank, v))?;
        }
        if let Some(far) = &self.far {
            moved |= far.poll(&mut on_frame)?;
        }
        Ok(moved)
    }

    fn is_due(&self) -> bool {
        let near = self.host.as_ref().is_some_and(Host::is_due);
        near || !self.oneself.is_empty()
    }

    fn pause(&mut self, idle: &mut Idle, may_sleep: bool) -> io::Result<()> {
        let spins = if self.crowded { SPINS_CROWDED } else { SPINS };
        idle.0 = idle.0.saturating_add(1);
        if idle.0 < spins {
            std::hint::spin_loop();
        } else if self.far.is_some() {
            // What a connection waits for wakes the ring, room for what is to leave as well; and
            // who wakes from a sleep is let run sooner than who has yielded.
            self.sleep()?;
        } else if idle.0 < spins + YIELDS || !may_sleep {
            shm::let_others_run();
        } else {
            self.sleep()?;
        }
        Ok(())
    }

    fn sleep(&mut self) -> io::Result<()> {
        match (&self.host, &self.far) {
            (_, Some(far)) if self.oneself.is_empty() => {
                let alone = self
                    .host
                    .as_ref()
                    .is_none_or(|host| host.readers.is_empty());
                far.sleep(if alone { SLEEP * 10 } else { SLEEP_MIXED })
            }
            (Some(host), None) => {
                host.region.sleep(host.place, SLEEP, || self.is_due());
                Ok(())
            }
            _ => {
                shm::let_others_run();
                Ok(())
            }
        }
    }

    fn is_flushed(&self) -> bool {
        self.oneself.is_empty() && self.far.as_ref().is_none_or(|far| far.mesh.is_flushed())
    }

    fn leave(&mut self) -> Result<(), Broken> {
        if let Some(host) = &self.host {
            host.region.set_life(host.place, Life::Finished);
        }
        let Some(far) = &self.far else {
            return Ok(());
        };
        let peers: Vec<u32> = far.mesh.peers().collect();
        far.ring.enter(|| {
            for peer in peers {
                far.mesh.push(peer, &Header::new(Kind::Goodbye), |_| {});
            }
        });
        while !far.mesh.is_flushed() {
            if !far.ring.poll()? {
                far.ring.sleep(SLEEP)?;
            }
        }
        Ok(())
    }
}

impl Host {
    fn open(path: &str, near: &[u32], rank: u32) -> io::Result<Host> {
        let region = Region::open(path, near.len())?;
        let place = near.iter().position(|at| *at == rank).unwrap_or_default();
        let others = || (0..near.len()).filter(|at| *at != place);
        let host = Host {
            readers: others()
                .map(|at| (near[at], region.reader(at, place)))
                .collect(),
            writers: (0..near.len()).map(|at| region.writer(place, at)).collect(),
            fetches: region.can_fetch(),
            region,
            place,
        };
        shm::end_with_parent();
        host.region.set_life(place, Life::Running);
        Ok(host)
    }

    fn is_due(&self) -> bool {
        self.readers.iter().any(|(_, reader)| reader.is_ready())
    }
}

impl Far {
    fn connect(job: &Job) -> Result<Far, JobError> {
        let config = RingConfig {
            pin: false,
            recv_buffer_bytes: 64 << 10,
            inbox_bytes_max: 1 << 20,
            ..RingConfig::default()
        };
        let ring = Driven::new(config)?;
        let (mesh, launcher) = ring.block_on(job.join())??;
        Ok(Far {
            mesh,
            _launcher: launcher,
            ring,
            turned: Cell::new(true),
        })
    }

    fn poll(
        &self,
        on_frame: &mut impl FnMut(u32, &Header, &[u8]) -> Result<(), Violation>,
    ) -> Result<bool, Broken> {
        let turned = self.ring.poll()?;
        if !turned && !self.turned.get() {
            return Ok(false);
        }
        self.ring.enter(|| {
            let mut cx = Context::from_waker(Waker::noop());
            let mut moved = false;
            for peer in self.mesh.peers() {
                match self.mesh.poll(&mut cx, peer, |header, payload| {
                    on_frame(peer, header, payload)
                }) {
                    Poll::Pending | Poll::Ready(Some(End::Goodbye)) => {}
                    Poll::Ready(None) => moved = true,
                    Poll::Ready(Some(End::Lost)) => return Err(Broken::Lost(peer)),
                    Poll::Ready(Some(End::Broken(violation))) => {
                        return Err(Broken::Violation(peer, violation));
                    }
                }
            }
            // What was paused for its length goes on with the next look.
            self.turned.set(moved);
            // What has left makes room for more.
            Ok(moved || turned)
        })
    }

    fn sleep(&self, longest: Duration) -> io::Result<()> {
        self.turned.set(true);
        self.ring.sleep(longest)
    }
}

impl<B: Buffer> Outlet<B> for Ways {
    #[inline]
    fn push(&mut self, peer: u32, header: &Header, payload: &Payload<'_, B>) -> bool {
        match self.routes[peer as usize] {
            Route::Memory(place) => {
                let Some(host) = &mut self.host else {
                    return false;
                };
                let pushed = host.writers[place].push(header, |into| payload.fill(into));
                if pushed {
                    host.region.ring_bell(place);
                }
                pushed
            }
            Route::Oneself => {
                let mut bytes = vec![0; payload.len()];
                payload.fill(&mut bytes);
                self.oneself.push_back((*header, bytes));
                true
            }
            Route::Connection => {
                let Some(far) = &self.far else {
                    return false;
                };
                far.ring
                    .enter(|| far.mesh.push(peer, header, |into| payload.fill(into)))
            }
        }
    }

    fn eager_max(&self, peer: u32) -> usize {
        match self.routes[peer as usize] {
            Route::Memory(_) => EAGER_MEMORY.min(self.memory_payload_max()),
            Route::Oneself => EAGER_SELF,
            Route::Connection => tcp::EAGER_MAX,
        }
    }

    fn piece_max(&self, peer: u32) -> usize {
        match self.routes[peer as usize] {
            Route::Memory(_) => PIECE_MEMORY.min(self.memory_payload_max()),
            Route::Oneself => EAGER_SELF,
            Route::Connection => tcp::PIECE_MAX,
        }
    }

    fn offers_fetch(&self, peer: u32, len: usize) -> bool {
        let fetches = self.host.as_ref().is_some_and(|host| host.fetches);
        len >= FETCH_MIN && fetches && matches!(self.routes[peer as usize], Route::Memory(_))
    }

    fn fetch(&mut self, peer: u32, address: u64, into: &B, len: usize) -> bool {
        let (Some(host), Route::Memory(place)) = (&self.host, self.routes[peer as usize]) else {
            return false;
        };
        let mut fetched = false;
        into.part(0, len)
            .update(&mut |into| fetched = host.region.fetch(place, address, into));
        fetched
    }
}

impl Ways {
    fn memory_payload_max(&self) -> usize {
        let first = self.host.as_ref().and_then(|host| host.writers.first());
        first.map_or(0, Writer::payload_max)
    }
}
