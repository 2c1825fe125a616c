//! The Rust API: a communicator whose calls wait, and requests for what does not.
//!
//! ```no_run
//! use ringmill_mpi::op::Op;
//! use ringmill_mpi::world::Communicator;
//!
//! // started by `ringmill-mpirun -n 4 PROGRAM`
//! let world = Communicator::join()?;
//! let next = (world.rank() + 1) % world.size();
//! let sent = world.isend(next, 7, format!("hello from {}", world.rank()).into_bytes())?;
//! let (bytes, status) = world.receive(None, Some(7), 64)?;
//! assert_eq!(status.source, Some((world.rank() + world.size() - 1) % world.size()));
//! println!("{}", String::from_utf8_lossy(&bytes));
//! world.wait(sent)?;
//! let mut sum = [f64::from(world.rank())];
//! world.all_reduce(&mut sum, Op::Sum)?;
//! world.leave()?;
//! # Ok::<(), ringmill_mpi::world::Error>(())
//! ```

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use thiserror::Error;

use crate::buffer::{Buffer, Bytes};
use crate::collective::{self, Blocks, Elements, Outcome, Place, Reducer, Run, Schedule};
use crate::endpoint::{Broken, Endpoint, Idle};
use crate::engine::{Destination, Fault, Mode, Started, Status};
use crate::group::{Group, split};
use crate::job::{Job as Environment, JobError};
use crate::matching::Pattern;
use crate::op::{Op, Scalar, is_defined};

/// What can go wrong with a call.
#[derive(Debug, Error)]
pub enum Error {
    /// The job could not be joined.
    #[error(transparent)]
    Join(#[from] JobError),
    /// The job cannot go on.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// A message was longer than its place.
    #[error("the message was longer than the buffer")]
    Truncated,
    /// A rank that was waited for is gone.
    #[error("a rank of the job is gone")]
    PeerLost,
    /// A rank, a tag or an operation that does not exist.
    #[error("{0}")]
    Argument(&'static str),
}

/// Numbers that travel, and can be reduced.
pub trait Element: Copy + Default {
    /// What it is.
    const SCALAR: Scalar;
    /// Its bytes, appended.
    fn put(self, into: &mut Vec<u8>);
    /// From its bytes.
    fn get(from: &[u8]) -> Self;
}

macro_rules! elements {
    ($($type:ty: $scalar:ident,)*) => {$(
        impl Element for $type {
            const SCALAR: Scalar = Scalar::$scalar;
            fn put(self, into: &mut Vec<u8>) {
                into.extend_from_slice(&self.to_ne_bytes());
            }
            fn get(from: &[u8]) -> Self {
                let mut bytes = [0; size_of::<$type>()];
                bytes.copy_from_slice(from);
                <$type>::from_ne_bytes(bytes)
            }
        }
    )*};
}

elements! { i32: I32, i64: I64, u8: U8, u32: U32, u64: U64, f32: F32, f64: F64, }

/// A message that is under way.
#[derive(Debug)]
#[must_use = "a request is to be waited for"]
pub struct Request {
    started: Started,
    buffer: Bytes,
}

#[derive(Debug)]
struct Shared {
    endpoint: RefCell<Endpoint<Bytes>>,
    next_context: Cell<u32>,
}

/// Ranks that talk to each other. Belongs to the thread that joined.
#[derive(Debug)]
pub struct Communicator {
    shared: Rc<Shared>,
    context: u32,
    group: Group,
    rank: u32,
    begun: Cell<i32>,
}

impl Communicator {
    /// Joins the job that the environment describes; alone, without a launcher.
    ///
    /// # Errors
    /// If the job cannot be joined.
    pub fn join() -> Result<Communicator, Error> {
        let job = Environment::from_environment()?;
        let endpoint = RefCell::new(Endpoint::join(&job)?);
        Ok(Communicator {
            shared: Rc::new(Shared {
                endpoint,
                next_context: Cell::new(2),
            }),
            context: 0,
            group: Group::new((0..job.size()).collect::<Vec<u32>>()),
            rank: job.rank,
            begun: Cell::new(0),
        })
    }

    /// The own rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        self.group.size() as u32
    }

    fn place(&self) -> Place {
        Place {
            rank: self.rank as usize,
            size: self.group.size(),
        }
    }

    // ---- messages ----

    /// Begins to send.
    ///
    /// # Errors
    /// If there is no such rank or tag.
    pub fn isend(&self, to: u32, tag: i32, bytes: Vec<u8>) -> Result<Request, Error> {
        self.begin(to, tag, bytes, Mode::Standard)
    }

    /// Begins to send; over when the message was matched.
    ///
    /// # Errors
    /// If there is no such rank or tag.
    pub fn issend(&self, to: u32, tag: i32, bytes: Vec<u8>) -> Result<Request, Error> {
        self.begin(to, tag, bytes, Mode::Synchronous)
    }

    fn begin(&self, to: u32, tag: i32, bytes: Vec<u8>, mode: Mode) -> Result<Request, Error> {
        let peer = self.group.members().get(to as usize).copied();
        let peer = peer.ok_or(Error::Argument("there is no such rank"))?;
        if tag < 0 {
            return Err(Error::Argument("tags are not negative"));
        }
        let to = Destination {
            peer,
            context: self.context,
            rank: self.rank,
            tag,
        };
        let buffer = Bytes::owned(bytes);
        let endpoint = &mut *self.shared.endpoint.borrow_mut();
        let started = endpoint.engine.send(&mut endpoint.ways, &to, mode, &buffer);
        Ok(Request { started, buffer })
    }

    /// Sends, and waits until the bytes have left.
    ///
    /// # Errors
    /// If there is no such rank or tag, or the job breaks.
    pub fn send(&self, to: u32, tag: i32, bytes: &[u8]) -> Result<(), Error> {
        let request = self.isend(to, tag, bytes.to_vec())?;
        self.wait(request).map(drop)
    }

    /// Begins to receive at most `longest` bytes.
    pub fn ireceive(&self, from: Option<u32>, tag: Option<i32>, longest: usize) -> Request {
        let buffer = Bytes::zeroed(longest);
        let pattern = Pattern {
            context: self.context,
            source: from,
            tag,
        };
        let started = self
            .shared
            .endpoint
            .borrow_mut()
            .engine
            .receive(pattern, buffer.clone());
        Request { started, buffer }
    }

    /// Receives at most `longest` bytes.
    ///
    /// # Errors
    /// If the message is longer, or the job breaks.
    pub fn receive(
        &self,
        from: Option<u32>,
        tag: Option<i32>,
        longest: usize,
    ) -> Result<(Vec<u8>, Status), Error> {
        let request = self.ireceive(from, tag, longest);
        self.wait(request)
    }

    /// What the oldest message that fits says of itself; waits for one.
    ///
    /// # Errors
    /// If the job breaks.
    pub fn probe(&self, from: Option<u32>, tag: Option<i32>) -> Result<Status, Error> {
        let pattern = Pattern {
            context: self.context,
            source: from,
            tag,
        };
        self.until(|endpoint| endpoint.engine.probe(&pattern))
    }

    /// Whether a request is over; things move meanwhile.
    ///
    /// # Errors
    /// If the job breaks.
    pub fn test(&self, request: &Request) -> Result<bool, Error> {
        self.shared.endpoint.borrow_mut().progress()?;
        Ok(match request.started {
            Started::Done(_) => true,
            Started::Pending(id) => self.shared.endpoint.borrow().engine.is_done(id),
        })
    }

    /// Waits for the end of a request: the bytes that were received, or sent.
    ///
    /// # Errors
    /// If the message was longer than its place, or the job breaks.
    pub fn wait(&self, request: Request) -> Result<(Vec<u8>, Status), Error> {
        let status = match request.started {
            Started::Done(status) => status,
            Started::Pending(id) => self.until(|endpoint| endpoint.engine.take(id))?,
        };
        check(status.fault)?;
        let mut bytes = request.buffer.to_vec();
        if status.source.is_some() {
            bytes.truncate(usize::try_from(status.length).unwrap_or(usize::MAX));
        }
        Ok((bytes, status))
    }

    fn until<T>(
        &self,
        mut look: impl FnMut(&mut Endpoint<Bytes>) -> Option<T>,
    ) -> Result<T, Error> {
        let mut idle = Idle::default();
        loop {
            let endpoint = &mut *self.shared.endpoint.borrow_mut();
            if let Some(found) = look(endpoint) {
                return Ok(found);
            }
            if endpoint.progress()? {
                idle = Idle::default();
            } else {
                endpoint.pause(&mut idle)?;
            }
        }
    }

    // ---- collective operations ----

    fn run(
        &self,
        schedule: Schedule,
        send: Bytes,
        receive: Bytes,
        reducer: Reducer,
    ) -> Result<(), Error> {
        self.begun.set((self.begun.get() + 1) & i32::MAX);
        let job = collective::Job {
            context: self.context + 1,
            tag: self.begun.get(),
            rank: self.rank,
            peers: self.group.members().into(),
        };
        let mut run = Run::new(job, Rc::new(schedule), send, receive, reducer);
        self.until(
            |endpoint| match run.advance(&mut endpoint.engine, &mut endpoint.ways) {
                Outcome::Waiting => None,
                Outcome::Done => Some(Ok(())),
                Outcome::Failed(fault) => Some(check(Some(fault))),
                Outcome::Reduce { .. } => Some(Err(Error::Argument("there is no such operation"))),
            },
        )?
    }

    /// Nobody goes on before all have come.
    ///
    /// # Errors
    /// If the job breaks.
    pub fn barrier(&self) -> Result<(), Error> {
        let none = || Bytes::zeroed(0);
        self.run(
            collective::barrier(self.place()),
            none(),
            none(),
            Reducer::None,
        )
    }

    /// The root's elements for all.
    ///
    /// # Errors
    /// If there is no such rank, lengths differ, or the job breaks.
    pub fn broadcast<T: Element>(&self, root: u32, elements: &mut [T]) -> Result<(), Error> {
        if root >= self.size() {
            return Err(Error::Argument("there is no such rank"));
        }
        let row = bytes_of(elements);
        let schedule = collective::broadcast(self.place(), root as usize, row.len());
        self.run(schedule, Bytes::zeroed(0), row.clone(), Reducer::None)?;
        fill(elements, &row);
        Ok(())
    }

    /// Everybody's elements, reduced, for all.
    ///
    /// # Errors
    /// If there is no such operation, lengths differ, or the job breaks.
    pub fn all_reduce<T: Element>(&self, elements: &mut [T], op: Op) -> Result<(), Error> {
        if !is_defined(op, T::SCALAR) {
            return Err(Error::Argument(
                "there is no such operation for these elements",
            ));
        }
        let row = bytes_of(elements);
        let what = Elements {
            count: elements.len(),
            width: T::SCALAR.size(),
            commutes: !matches!(op, Op::Replace | Op::Keep),
        };
        let schedule = collective::all_reduce(self.place(), what, true);
        self.run(
            schedule,
            Bytes::zeroed(0),
            row.clone(),
            Reducer::Basic(op, T::SCALAR),
        )?;
        fill(elements, &row);
        Ok(())
    }

    /// Everybody's elements, by rank, for all. All have as many.
    ///
    /// # Errors
    /// If lengths differ, or the job breaks.
    pub fn all_gather<T: Element>(&self, elements: &[T]) -> Result<Vec<T>, Error> {
        let send = bytes_of(elements);
        let row = Bytes::zeroed(send.len() * self.group.size());
        let schedule = collective::all_gather(self.place(), &Blocks::Even(send.len()), false);
        self.run(schedule, send, row.clone(), Reducer::None)?;
        let mut gathered = vec![T::default(); elements.len() * self.group.size()];
        fill(&mut gathered, &row);
        Ok(gathered)
    }

    /// Everybody has a part for everybody: as many elements for each.
    ///
    /// # Errors
    /// If the elements cannot be divided, lengths differ, or the job breaks.
    pub fn all_to_all<T: Element>(&self, elements: &[T]) -> Result<Vec<T>, Error> {
        if !elements.len().is_multiple_of(self.group.size()) {
            return Err(Error::Argument("as many elements for each rank are needed"));
        }
        let send = bytes_of(elements);
        let blocks = Blocks::Even(send.len() / self.group.size());
        let row = Bytes::zeroed(send.len());
        let schedule = collective::all_to_all(self.place(), &blocks, &blocks, false);
        self.run(schedule, send, row.clone(), Reducer::None)?;
        let mut exchanged = vec![T::default(); elements.len()];
        fill(&mut exchanged, &row);
        Ok(exchanged)
    }

    // ---- other communicators ----

    /// Those of one colour, ordered by key and rank; nobody for no colour.
    ///
    /// # Errors
    /// If the job breaks.
    pub fn split(&self, colour: Option<u32>, key: i32) -> Result<Option<Communicator>, Error> {
        let offer = [
            i64::from(self.shared.next_context.get()),
            colour.map_or(-1, i64::from),
            i64::from(key),
        ];
        let offers = self.all_gather(&offer)?;
        let offers: Vec<&[i64]> = offers.chunks_exact(offer.len()).collect();
        let context = offers.iter().map(|offer| offer[0]).max().unwrap_or(0);
        let context =
            u32::try_from(context).map_err(|_| Error::Argument("too many communicators"))?;
        self.shared.next_context.set(context + 2);
        let told: Vec<(Option<u32>, i32)> = offers
            .iter()
            .map(|offer| (u32::try_from(offer[1]).ok(), offer[2] as i32))
            .collect();
        let Some(chosen) = split(&told, self.rank as usize) else {
            return Ok(None);
        };
        let rank = chosen
            .iter()
            .position(|rank| *rank == self.rank)
            .unwrap_or(0) as u32;
        let group = self
            .group
            .include(&chosen)
            .ok_or(Error::Argument("there is no such rank"))?;
        Ok(Some(Communicator {
            shared: self.shared.clone(),
            context,
            group,
            rank,
            begun: Cell::new(0),
        }))
    }

    /// The same ranks, with messages of their own.
    ///
    /// # Errors
    /// If the job breaks.
    pub fn duplicate(&self) -> Result<Communicator, Error> {
        let copy = self.split(Some(0), self.rank.cast_signed())?;
        copy.ok_or(Error::Argument("a duplicate has all ranks"))
    }

    /// Leaves the job, when all do.
    ///
    /// # Errors
    /// If the job breaks meanwhile.
    pub fn leave(self) -> Result<(), Error> {
        self.barrier()?;
        Ok(self.shared.endpoint.borrow_mut().leave()?)
    }
}

fn check(fault: Option<Fault>) -> Result<(), Error> {
    match fault {
        None => Ok(()),
        Some(Fault::Truncated) => Err(Error::Truncated),
        Some(Fault::PeerLost) => Err(Error::PeerLost),
    }
}

fn bytes_of<T: Element>(elements: &[T]) -> Bytes {
    let mut bytes = Vec::with_capacity(size_of_val(elements));
    elements.iter().for_each(|element| element.put(&mut bytes));
    Bytes::owned(bytes)
}

fn fill<T: Element>(elements: &mut [T], from: &Bytes) {
    let bytes = from.to_vec();
    for (element, bytes) in elements
        .iter_mut()
        .zip(bytes.chunks_exact(T::SCALAR.size()))
    {
        *element = T::get(bytes);
    }
}
