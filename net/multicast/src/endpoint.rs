//! A node of a NORM session on the ring's sockets: the shell around [`Sender`] and [`Receiver`].
//!
//! Two sockets: one that is bound to the group and hears what is sent to it, and one of the
//! node's own, which all is sent from and unicast feedback comes back to. Datagrams of one
//! length that leave together go as a train (UDP GSO). Where there is no multicast, the same
//! session runs over a list of addresses: each datagram goes to each of them
//! ([`Network::Fanout`]).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ringmill_ring::{Instant, JoinHandle, Notify, UdpSocket, now, spawn, timeout};

use crate::messages;
use crate::receiver::{Chunk, Receiver, ReceiverConfig, ReceiverEvent};
use crate::sender::{SendError, Sender, SenderConfig, SenderEvent};
use crate::transmit::{Destination, Transmit};
use crate::wire::Packet;

/// Bytes of datagrams that the kernel keeps for us: what comes while the core is busy.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The longest datagram.
const DATAGRAM_MAX: usize = 65_507;

/// Datagrams are received into pieces of this, one behind the other.
const CHUNK: usize = 4 * DATAGRAM_MAX;

/// Datagrams of a train (UDP_MAX_SEGMENTS is 64 in older kernels), and bytes of it.
const TRAIN_MAX: usize = 60;
const TRAIN_BYTES: usize = 60_000;

/// Bytes that may wait for the sender; past it, writers wait.
const OUTBOX_MAX: usize = 1 << 20;

/// Where something waits for room, it is looked for so often.
const ROOM_CHECK: Duration = Duration::from_millis(2);

/// How a node reaches its group.
#[derive(Clone, Debug)]
pub enum Network {
    /// By multicast.
    Multicast {
        /// The group's address and port.
        group: SocketAddrV4,
        /// The address of the interface; unspecified: the system's choice.
        interface: Ipv4Addr,
        /// How many hops far.
        ttl: u8,
        /// Members on this host hear it too.
        loopback: bool,
    },
    /// By unicast to each of its members, where there is no multicast.
    Fanout {
        /// This node's own address.
        local: SocketAddr,
        /// The others'.
        members: Vec<SocketAddr>,
    },
}

/// What of a session a node plays.
#[derive(Debug, Default)]
struct Roles {
    sender: Option<Sender>,
    receiver: Option<Receiver>,
}

/// A node. Clones share it; it belongs to the core that opened it, and works until the last
/// clone is dropped.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: Rc<Inner>,
    _tasks: Rc<Tasks>,
}

/// The tasks of a node; they end with it.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tasks", self.0.len())
    }
}

#[derive(Debug)]
struct Inner {
    roles: RefCell<Roles>,
    own: UdpSocket,
    network: Network,
    /// Something is to be sent, or was given to the state machines.
    work: Notify,
    /// Something arrived, or room was made.
    news: Notify,
    outbox: RefCell<Outbox>,
}

/// What was written and found no room with the sender yet.
#[derive(Debug, Default)]
struct Outbox {
    /// The stream, the bytes, and whether they end a message.
    parts: VecDeque<(u64, Bytes, bool)>,
    bytes: usize,
}

impl Outbox {
    /// Puts the parts of a message; false if there is no room.
    fn put(&mut self, stream: u64, parts: &[Bytes]) -> bool {
        if self.bytes >= OUTBOX_MAX {
            return false;
        }
        let last = parts.iter().rposition(|part| !part.is_empty());
        for (index, part) in parts
            .iter()
            .enumerate()
            .filter(|(_, part)| !part.is_empty())
        {
            self.bytes += part.len();
            self.parts
                .push_back((stream, part.clone(), Some(index) == last));
        }
        true
    }

    /// Gives to the sender what it takes; false if something is left.
    fn drain(&mut self, now: Instant, sender: &mut Sender) -> bool {
        while let Some((stream, bytes, end)) = self.parts.front_mut() {
            // What a stream that was closed meanwhile does not take is dropped.
            let taken = sender
                .write(now, *stream, bytes, *end)
                .unwrap_or(bytes.len());
            self.bytes -= taken;
            if taken < bytes.len() {
                bytes.advance(taken);
                return false;
            }
            self.parts.pop_front();
        }
        true
    }
}

impl Endpoint {
    /// Opens a node as a sender, a receiver or both.
    pub async fn open(
        network: Network,
        sender: Option<SenderConfig>,
        receiver: Option<ReceiverConfig>,
    ) -> io::Result<Endpoint> {
        let sender = sender.map(|config| Sender::new(now(), config)).transpose();
        let sender = sender.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let (own, shared) = sockets(&network).await?;
        let inner = Rc::new(Inner {
            roles: RefCell::new(Roles {
                sender,
                receiver: receiver.map(Receiver::new),
            }),
            own: own.clone(),
            network,
            work: Notify::new(),
            news: Notify::new(),
            outbox: RefCell::default(),
        });
        let mut tasks = Vec::new();
        for socket in [Some(own), shared].into_iter().flatten() {
            let inner = inner.clone();
            tasks.push(spawn(async move { inner.receive(socket).await }));
        }
        let driven = inner.clone();
        tasks.push(spawn(async move { driven.drive().await }));
        Ok(Endpoint {
            inner,
            _tasks: Rc::new(Tasks(tasks)),
        })
    }

    /// The address that this node sends from.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.own.local_addr()
    }

    /// Works with the sender.
    ///
    /// # Panics
    /// If this node is none.
    pub fn with_sender<T>(&self, f: impl FnOnce(&mut Sender, Instant) -> T) -> T {
        let result = self.peek_sender(|sender| f(sender, now()));
        self.inner.work.notify_one();
        result
    }

    /// Works with the sender without giving it anything to send.
    fn peek_sender<T>(&self, f: impl FnOnce(&mut Sender) -> T) -> T {
        let mut roles = self.inner.roles.borrow_mut();
        f(roles.sender.as_mut().expect("this node is a sender"))
    }

    /// Works with the receiver.
    ///
    /// # Panics
    /// If this node is none.
    pub fn with_receiver<T>(&self, f: impl FnOnce(&mut Receiver) -> T) -> T {
        let mut roles = self.inner.roles.borrow_mut();
        let receiver = roles.receiver.as_mut().expect("this node is a receiver");
        f(receiver)
    }

    /// Writes bytes to a stream, in the order of the calls; waits while much is written already.
    /// The last byte ends what receivers that join take for a message.
    pub async fn write(&self, stream: u64, bytes: Bytes) -> Result<(), SendError> {
        self.put(stream, &[bytes]).await
    }

    /// Sends a message on a stream ([`messages`]), as [`Endpoint::write`].
    pub async fn cast(&self, stream: u64, message: Bytes) -> Result<(), SendError> {
        let length = messages::length(&message).ok_or(SendError::TooLong(message.len()))?;
        let length = Bytes::copy_from_slice(&length);
        self.put(stream, &[length, message]).await
    }

    /// Puts the parts of a message into the outbox, all at once.
    async fn put(&self, stream: u64, parts: &[Bytes]) -> Result<(), SendError> {
        loop {
            let news = self.inner.news.notified();
            if !self.peek_sender(|sender| sender.is_open(stream)) {
                return Err(SendError::NoStream(stream));
            }
            if self.inner.outbox.borrow_mut().put(stream, parts) {
                break;
            }
            news.await;
        }
        self.inner.work.notify_one();
        Ok(())
    }

    /// Ends a stream behind all that was written to it.
    pub async fn close(&self, stream: u64) -> Result<(), SendError> {
        loop {
            let news = self.inner.news.notified();
            let written = self.inner.outbox.borrow().parts.is_empty();
            if written && self.peek_sender(|s| s.close_stream(now(), stream))? {
                self.inner.work.notify_one();
                return Ok(());
            }
            let _ = timeout(ROOM_CHECK, news).await;
        }
    }

    /// The next piece of any stream.
    pub async fn read(&self) -> Chunk {
        loop {
            let news = self.inner.news.notified();
            if let Some(chunk) = self.with_receiver(Receiver::read) {
                return chunk;
            }
            news.await;
        }
    }

    /// The next event of the receiver.
    pub async fn receiver_event(&self) -> ReceiverEvent {
        loop {
            let news = self.inner.news.notified();
            if let Some(event) = self.with_receiver(Receiver::poll_event) {
                return event;
            }
            news.await;
        }
    }

    /// The next event of the sender.
    pub async fn sender_event(&self) -> SenderEvent {
        loop {
            let news = self.inner.news.notified();
            if let Some(event) = self.peek_sender(Sender::poll_event) {
                return event;
            }
            news.await;
        }
    }
}

impl Inner {
    /// Takes what arrives at a socket.
    async fn receive(&self, socket: UdpSocket) {
        let mut buf = BytesMut::with_capacity(CHUNK);
        loop {
            if buf.capacity() < DATAGRAM_MAX {
                buf = BytesMut::with_capacity(CHUNK);
            }
            let (result, filled) = socket.recv_from(buf).await;
            buf = filled;
            // A datagram that could not be delivered (ICMP) shows as an error of the next call.
            if let Ok((len, from)) = result {
                let datagram = buf.split_to(len).freeze();
                self.on_datagram(from, datagram);
            }
        }
    }

    fn on_datagram(&self, from: SocketAddr, datagram: Bytes) {
        let (now, len) = (now(), datagram.len());
        let mut roles = self.roles.borrow_mut();
        match Packet::decode(datagram) {
            Ok(packet) => {
                if let Some(sender) = &mut roles.sender {
                    sender.on_packet(now, from, &packet);
                }
                if let Some(receiver) = &mut roles.receiver {
                    receiver.on_packet(now, from, packet, len);
                }
            }
            Err(_) => {
                if let Some(receiver) = &mut roles.receiver {
                    receiver.on_malformed();
                }
            }
        }
        drop(roles);
        self.work.notify_one();
        self.news.notify_all();
    }

    /// Sends what is due, for as long as the node lives.
    async fn drive(&self) {
        loop {
            let work = self.work.notified();
            let mut sent = false;
            let written = self.drain_outbox();
            while let Some(train) = self.next_train() {
                self.send(train).await;
                sent = true;
            }
            if sent || written {
                self.news.notify_all();
            }
            // A sender's room also comes with time alone, by its policy.
            let again = (!written).then(|| now() + ROOM_CHECK);
            match self.next_deadline().into_iter().chain(again).min() {
                Some(deadline) => {
                    let wait = deadline.saturating_duration_since(now());
                    let _ = timeout(wait, work).await;
                }
                None => work.await,
            }
        }
    }

    /// Gives to the sender what waits; false if something still does.
    fn drain_outbox(&self) -> bool {
        let mut roles = self.roles.borrow_mut();
        let Some(sender) = &mut roles.sender else {
            return true;
        };
        self.outbox.borrow_mut().drain(now(), sender)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let roles = self.roles.borrow();
        let sender = roles.sender.as_ref().and_then(Sender::next_deadline);
        let receiver = roles.receiver.as_ref().and_then(Receiver::next_deadline);
        sender.into_iter().chain(receiver).min()
    }

    fn next_transmit(&self) -> Option<Transmit> {
        let now = now();
        let mut roles = self.roles.borrow_mut();
        let of_receiver = roles.receiver.as_mut().and_then(|r| r.poll_transmit(now));
        of_receiver.or_else(|| roles.sender.as_mut()?.poll_transmit(now))
    }

    /// The next datagrams that go the same way and have one length, but for the last.
    fn next_train(&self) -> Option<Train> {
        let first = self.next_transmit()?;
        let segment = first.datagram.len();
        let mut train = Train {
            to: first.to,
            segment,
            count: 1,
            bufs: Vec::with_capacity(2 * TRAIN_MAX),
            next: None,
        };
        train.push(first);
        while train.count < TRAIN_MAX && (train.count + 1) * segment <= TRAIN_BYTES {
            let Some(next) = self.next_transmit() else {
                break;
            };
            if next.to != train.to || next.datagram.len() > segment {
                train.next = Some(next);
                break;
            }
            let is_last = next.datagram.len() < segment;
            train.count += 1;
            train.push(next);
            if is_last {
                break;
            }
        }
        Some(train)
    }

    async fn send(&self, train: Train) {
        let (mut train, mut next) = (train, None);
        loop {
            std::mem::swap(&mut next, &mut train.next);
            let to: Vec<SocketAddr> = match (train.to, &self.network) {
                (Destination::Node(node), _) => vec![node],
                (Destination::Group, Network::Multicast { group, .. }) => vec![(*group).into()],
                (Destination::Group, Network::Fanout { members, .. }) => members.clone(),
            };
            for to in to {
                let bufs = train.bufs.clone();
                // What the network refuses is lost as what it loses: the protocol repairs it.
                let _ = match train.count {
                    1 => self.own.send_to(bufs, to).await,
                    _ => {
                        let segment = train.segment as u16;
                        self.own.send_segments_to(bufs, segment, to).await
                    }
                };
            }
            let Some(left) = next.take() else { return };
            train = Train {
                to: left.to,
                segment: left.datagram.len(),
                count: 1,
                bufs: Vec::new(),
                next: None,
            };
            train.push(left);
        }
    }
}

/// Datagrams that leave by one call.
struct Train {
    to: Destination,
    segment: usize,
    count: usize,
    bufs: Vec<Bytes>,
    /// One that did not fit in.
    next: Option<Transmit>,
}

impl Train {
    fn push(&mut self, transmit: Transmit) {
        self.bufs.push(transmit.datagram.head);
        if !transmit.datagram.body.is_empty() {
            self.bufs.push(transmit.datagram.body);
        }
    }
}

/// The node's own socket, and the one that hears the group, if that is another.
async fn sockets(network: &Network) -> io::Result<(UdpSocket, Option<UdpSocket>)> {
    match network {
        Network::Multicast {
            group,
            interface,
            ttl,
            loopback,
        } => {
            let own = SocketAddrV4::new(*interface, 0);
            let own = UdpSocket::bind_multicast(own, *interface, *ttl, *loopback).await?;
            let shared = UdpSocket::join(*group, *interface, Some(RECEIVE_BUFFER)).await?;
            Ok((own, Some(shared)))
        }
        Network::Fanout { local, .. } => Ok((UdpSocket::bind(*local).await?, None)),
    }
}
