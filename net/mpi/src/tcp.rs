//! Frames between hosts: one connection of the ring's for each pair of ranks. It runs in the
//! simulated world as well.
//!
//! A connection begins with a line that says who calls, and the job's cookie. Then frames follow
//! each other; a peer that closes without a [`Kind::Goodbye`] is lost.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{JoinHandle, Notify, TcpListener, TcpStream, spawn, timeout};

use crate::wire::{HEADER_BYTES, Header, Kind, Violation};

/// Bytes that wait for a peer, before it takes no more for now: few, so that they leave while
/// further ones are copied.
const OUTBOX_MAX: usize = 256 << 10;
/// The longest message that travels whole.
pub const EAGER_MAX: usize = 128 << 10;
/// The longest piece of a long message.
pub const PIECE_MAX: usize = 64 << 10;
/// Frames that are kept for later ones.
const SPARE_FRAMES: usize = 8;
/// The longest first line.
const GREETING_MAX: usize = 128;
/// How long ranks have to find each other.
pub const GREETING_TIME: Duration = Duration::from_secs(60);
/// Frames that leave with one call, at most.
const TRAIN_MAX: usize = 64;

/// Why nothing comes from a peer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It said goodbye.
    Goodbye,
    /// The connection broke, or was closed without a goodbye.
    Lost,
    /// It sent what no honest peer sends.
    Broken(Violation),
}

/// What has come from a peer.
#[derive(Debug, Default)]
struct Inbox {
    /// With the last look.
    came: BytesMut,
    /// The beginning of a frame, from before.
    left: Vec<u8>,
    /// A piece of a long message whose beginning was handed out: what is to come of it.
    open: Option<Header>,
}

#[derive(Debug)]
struct Link {
    stream: TcpStream,
    inbox: RefCell<Inbox>,
    /// The inbox holds what came with the greeting, and nobody has looked at it.
    early: Cell<bool>,
    outbox: RefCell<VecDeque<Bytes>>,
    /// Frames that have left, for new ones.
    spare: RefCell<Vec<BytesMut>>,
    waiting: Cell<usize>,
    /// Something is in the outbox.
    work: Notify,
    end: Cell<Option<End>>,
    said_goodbye: Cell<bool>,
}

/// Connections to the ranks on other hosts. Belongs to one core.
pub struct Mesh {
    links: Vec<Option<Rc<Link>>>,
    writers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("links", &self.links)
            .finish_non_exhaustive()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.writers.iter().for_each(JoinHandle::abort);
    }
}

/// A connection, and what came with its greeting.
type Joined = (TcpStream, BytesMut);

/// Who joins a job.
#[derive(Clone, Debug)]
pub struct Card {
    /// The own rank.
    pub rank: u32,
    /// What all ranks of the job know, and nobody else.
    pub cookie: String,
}

impl Mesh {
    /// Connects with all ranks that have an address here: calls those below one's own rank, and
    /// waits for the calls of those above.
    ///
    /// # Errors
    /// If a peer cannot be reached, or has not called in time.
    pub async fn connect(
        card: Card,
        listener: TcpListener,
        addresses: Vec<Option<SocketAddr>>,
    ) -> io::Result<Mesh> {
        let joined = timeout(GREETING_TIME, join(&card, &listener, &addresses)).await;
        let streams = joined.map_err(|_| {
            io::Error::new(
                io::ErrorKind::TimedOut,
                "not all ranks of the job came in time",
            )
        })??;
        let link = |(stream, inbox): (TcpStream, BytesMut)| Link {
            stream,
            early: Cell::new(!inbox.is_empty()),
            inbox: RefCell::new(Inbox {
                came: inbox,
                ..Inbox::default()
            }),
            outbox: RefCell::default(),
            spare: RefCell::default(),
            waiting: Cell::new(0),
            work: Notify::new(),
            end: Cell::new(None),
            said_goodbye: Cell::new(false),
        };
        let links: Vec<Option<Rc<Link>>> = streams
            .into_iter()
            .map(|joined| joined.map(|joined| Rc::new(link(joined))))
            .collect();
        let writers = links
            .iter()
            .flatten()
            .map(|link| spawn(write(link.clone())))
            .collect();
        Ok(Mesh { links, writers })
    }

    /// Puts a frame on its way; false if too much waits already. A peer that has ended takes
    /// everything, and it goes nowhere.
    pub fn push(&self, peer: u32, header: &Header, fill: impl FnOnce(&mut [u8])) -> bool {
        let Some(link) = self.links[peer as usize].as_ref() else {
            return true;
        };
        let len = HEADER_BYTES + header.payload as usize;
        if link.waiting.get() > 0 && link.waiting.get() + len > OUTBOX_MAX {
            return link.end.get().is_some();
        }
        let mut frame = link.spare.borrow_mut().pop().unwrap_or_default();
        frame.resize(len, 0);
        frame[..HEADER_BYTES].copy_from_slice(&header.encode());
        fill(&mut frame[HEADER_BYTES..]);
        link.waiting.set(link.waiting.get() + len);
        link.outbox.borrow_mut().push_back(frame.freeze());
        link.work.notify_one();
        true
    }

    /// Looks for frames of a peer and hands them out. When the peer has ended, says how, once.
    ///
    /// # Panics
    /// If `on_frame` uses the mesh to receive.
    pub fn poll(
        &self,
        cx: &mut Context<'_>,
        peer: u32,
        mut on_frame: impl FnMut(&Header, &[u8]) -> Result<(), Violation>,
    ) -> Poll<Option<End>> {
        let Some(link) = self.links[peer as usize].as_ref() else {
            return Poll::Pending;
        };
        if link.end.get().is_some() {
            return Poll::Pending;
        }
        let mut came = false;
        loop {
            let received = match link.early.replace(false) {
                true => Poll::Ready(Ok(1)),
                false => link.stream.poll_recv(cx, &mut link.inbox.borrow_mut().came),
            };
            let end = match received {
                Poll::Pending if came => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) if link.said_goodbye.get() => End::Goodbye,
                Poll::Ready(Ok(0) | Err(_)) => End::Lost,
                Poll::Ready(Ok(_)) => match link.deliver(&mut on_frame) {
                    Ok(()) => {
                        came = true;
                        continue;
                    }
                    Err(violation) => End::Broken(violation),
                },
            };
            link.end.set(Some(end));
            link.outbox.borrow_mut().clear();
            link.waiting.set(0);
            return Poll::Ready(Some(end));
        }
    }

    /// Ranks that are reached by connections.
    pub fn peers(&self) -> impl Iterator<Item = u32> {
        let linked = |(peer, link): (usize, &Option<Rc<Link>>)| link.as_ref().map(|_| peer as u32);
        self.links.iter().enumerate().filter_map(linked)
    }

    /// Whether everything that was pushed has been handed to the kernel.
    pub fn is_flushed(&self) -> bool {
        let flushed = |link: &Rc<Link>| link.waiting.get() == 0 || link.end.get().is_some();
        self.links.iter().flatten().all(flushed)
    }
}

impl Link {
    /// Hands out what has come: frames that are complete, and of a piece of a long message also
    /// its beginning, as a shorter piece.
    fn deliver(
        &self,
        on_frame: &mut impl FnMut(&Header, &[u8]) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let mut inbox = self.inbox.borrow_mut();
        let inbox = &mut *inbox;
        let mut came = &inbox.came[..];
        if let Some(open) = &mut inbox.open {
            let part;
            (part, came) = came.split_at(came.len().min(open.payload as usize));
            let rest = hand_out(open, part, on_frame)?;
            inbox.open = rest;
        }
        // What is left of before is a frame that is not complete: it is completed here.
        while !inbox.left.is_empty() && !came.is_empty() {
            let missing = missing(&inbox.left)?.min(came.len());
            inbox.left.extend_from_slice(&came[..missing]);
            came = &came[missing..];
            if missing_none(&inbox.left)? {
                let left = std::mem::take(&mut inbox.left);
                self.hand_out_frames(&left, on_frame)?;
                inbox.left = left;
                inbox.left.clear();
            }
        }
        let rest = self.hand_out_frames(came, on_frame)?;
        let rest = match rest.first_chunk::<HEADER_BYTES>() {
            Some(head) => {
                let header = Header::decode(head)?;
                match header.kind {
                    Kind::Data if rest.len() > HEADER_BYTES => {
                        inbox.open = hand_out(&header, &rest[HEADER_BYTES..], on_frame)?;
                        &[]
                    }
                    _ => rest,
                }
            }
            None => rest,
        };
        inbox.left.extend_from_slice(rest);
        inbox.came.clear();
        Ok(())
    }

    /// Hands out the frames that are complete, and returns what is behind them.
    fn hand_out_frames<'a>(
        &self,
        mut bytes: &'a [u8],
        on_frame: &mut impl FnMut(&Header, &[u8]) -> Result<(), Violation>,
    ) -> Result<&'a [u8], Violation> {
        while let Some(head) = bytes.first_chunk::<HEADER_BYTES>() {
            let header = Header::decode(head)?;
            let len = HEADER_BYTES + header.payload as usize;
            let Some((frame, rest)) = bytes.split_at_checked(len) else {
                break;
            };
            if header.kind == Kind::Goodbye {
                self.said_goodbye.set(true);
            }
            on_frame(&header, &frame[HEADER_BYTES..])?;
            bytes = rest;
        }
        Ok(bytes)
    }
}

/// Hands out the beginning of a piece; returns the piece that is still to come.
fn hand_out(
    piece: &Header,
    part: &[u8],
    on_frame: &mut impl FnMut(&Header, &[u8]) -> Result<(), Violation>,
) -> Result<Option<Header>, Violation> {
    let len = part.len() as u32;
    if len > 0 {
        on_frame(
            &Header {
                payload: len,
                ..*piece
            },
            part,
        )?;
    }
    let rest = Header {
        payload: piece.payload - len,
        length: piece.length.wrapping_add(len.into()),
        ..*piece
    };
    Ok((rest.payload > 0).then_some(rest))
}

/// Bytes that a beginning of a frame still wants: of its header, or then of all of it.
fn missing(beginning: &[u8]) -> Result<usize, Violation> {
    match beginning.first_chunk::<HEADER_BYTES>() {
        None => Ok(HEADER_BYTES - beginning.len()),
        Some(head) => {
            let header = Header::decode(head)?;
            Ok(HEADER_BYTES + header.payload as usize - beginning.len())
        }
    }
}

/// Whether it is a whole frame.
fn missing_none(beginning: &[u8]) -> Result<bool, Violation> {
    Ok(beginning.len() >= HEADER_BYTES && missing(beginning)? == 0)
}

/// Sends what is in the outbox, until the connection breaks.
async fn write(link: Rc<Link>) {
    loop {
        let mut train = Vec::new();
        {
            let mut outbox = link.outbox.borrow_mut();
            let count = outbox.len().min(TRAIN_MAX);
            train.extend(outbox.drain(..count));
        }
        if train.is_empty() {
            link.work.notified().await;
            continue;
        }
        let len: usize = train.iter().map(Bytes::len).sum();
        let frames: Vec<Bytes> = train.iter().take(SPARE_FRAMES).cloned().collect();
        if link.stream.send(train).await.is_err() {
            // Whoever receives learns it from the same connection.
            return;
        }
        link.waiting.set(link.waiting.get().saturating_sub(len));
        let mut spare = link.spare.borrow_mut();
        for frame in frames
            .into_iter()
            .filter_map(|frame| frame.try_into_mut().ok())
        {
            if spare.len() < SPARE_FRAMES {
                spare.push(frame);
            }
        }
    }
}

// ---- finding each other ----

async fn join(
    card: &Card,
    listener: &TcpListener,
    addresses: &[Option<SocketAddr>],
) -> io::Result<Vec<Option<Joined>>> {
    let mut streams: Vec<Option<Joined>> = addresses.iter().map(|_| None).collect();
    let own = card.rank as usize;
    for (rank, address) in addresses.iter().enumerate().take(own) {
        if let Some(address) = address {
            let stream = TcpStream::connect(*address).await?;
            let line = format!("ringmill-mpi 1 {} {}\n", card.cookie, card.rank);
            stream.send(vec![Bytes::from(line)]).await?;
            streams[rank] = Some((stream, BytesMut::new()));
        }
    }
    let mut missing = addresses.iter().skip(own + 1).flatten().count();
    let calls = Rc::new(Calls::default());
    let mut greetings = Vec::new();
    while missing > 0 {
        // A caller that says nothing must not keep the others from being heard.
        let accepted = std::pin::pin!(listener.accept());
        match first(accepted, calls.bell.notified()).await {
            Some(accepted) => {
                let (calls, cookie) = (calls.clone(), card.cookie.clone());
                let stream = accepted?.0;
                greetings.push(spawn(async move {
                    if let Some((rank, rest)) = greeting(&stream, &cookie).await {
                        calls.heard.borrow_mut().push((rank, (stream, rest)));
                        calls.bell.notify_one();
                    }
                }));
            }
            None => {
                for (rank, joined) in calls.heard.take() {
                    let expected = rank > own && addresses.get(rank).is_some_and(Option::is_some);
                    if expected && streams[rank].is_none() {
                        streams[rank] = Some(joined);
                        missing -= 1;
                    }
                }
            }
        }
    }
    greetings.iter().for_each(JoinHandle::abort);
    Ok(streams)
}

/// Callers that have said who they are.
#[derive(Default)]
struct Calls {
    heard: RefCell<Vec<(usize, Joined)>>,
    bell: Notify,
}

/// The first one's output, or none if the second is ready before.
async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = ()>) -> Option<T> {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    std::future::poll_fn(|cx| {
        if other.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        one.as_mut().poll(cx).map(Some)
    })
    .await
}

/// The rank of a caller that knows the cookie, and what it sent behind its line.
async fn greeting(stream: &TcpStream, cookie: &str) -> Option<(usize, BytesMut)> {
    let (line, rest) = read_line(stream, GREETING_MAX).await?;
    let mut words = line.split(' ');
    let known = words.next() == Some("ringmill-mpi")
        && words.next() == Some("1")
        && words.next() == Some(cookie);
    let rank = known.then(|| words.next()?.parse().ok()).flatten()?;
    Some((rank, rest))
}

/// A line of at most so many bytes, and what came behind it.
pub(crate) async fn read_line(stream: &TcpStream, longest: usize) -> Option<(String, BytesMut)> {
    let mut line = BytesMut::new();
    loop {
        if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let rest = line.split_off(end + 1);
            line.truncate(end);
            return Some((String::from_utf8(line.to_vec()).ok()?, rest));
        }
        // What came behind a line may be as long as it likes.
        if line.len() > longest {
            return None;
        }
        let received = stream.recv(&mut line).await;
        if !matches!(received, Ok(count) if count > 0) {
            return None;
        }
    }
}
