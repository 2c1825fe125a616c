//! A world of one sender and some receivers, and what must hold in it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use ringmill_ring::Instant;

use super::network_test::Network;
use super::scenario_test::{Act, Mishap, Scenario};
use crate::wire::Packet;
use crate::{
    Chunk, Destination, Receiver, ReceiverEvent, Sender, SenderEvent, SlowReceiver, Transmit,
};

/// Virtual time after the last act in which all must have arrived.
const PATIENCE: u64 = 5_000_000_000_000;

/// Datagrams that a run may take: more is a storm.
const STORM: u64 = 2_000_000;

/// The byte of a life's stream or object at a place.
fn byte(instance: u16, object: u64, place: u64) -> u8 {
    let x = place.wrapping_mul(0x9e37_79b9).wrapping_add(object << 7) ^ u64::from(instance);
    (x ^ (x >> 11)) as u8
}

fn bytes(instance: u16, object: u64, from: u64, len: usize) -> Bytes {
    (0..len as u64)
        .map(|i| byte(instance, object, from + i))
        .collect()
}

/// The sender's application.
struct Source {
    sender: Sender,
    instance: u16,
    stream: u64,
    /// Bytes of the stream that were written.
    written: u64,
    /// Of a message that found no room: what is left.
    left: usize,
    closed: bool,
    /// What was sent as objects in this life.
    objects: BTreeMap<u64, usize>,
    squelched: bool,
    dropped: Vec<u32>,
}

/// A receiver's application: what it got of each life's stream.
struct Sink {
    receiver: Receiver,
    /// By life and stream: the first place, and the next.
    streams: BTreeMap<(u16, u64), (u64, u64)>,
    /// Streams that began or ended, by life.
    ends: Vec<(u16, u64)>,
    /// The last life that was heard of.
    life: u16,
    objects: BTreeMap<(u16, u64), ()>,
    objects_lost: Vec<(u16, u64)>,
    lost: u64,
    asleep: bool,
    /// It was there before anything was sent, and stayed.
    from_the_start: bool,
}

pub(super) struct World {
    scenario: Scenario,
    seed: u64,
    now: u64,
    network: Network,
    source: Source,
    sinks: Vec<Option<Sink>>,
    wakes: Vec<u64>,
    lives: u64,
    datagrams: u64,
    /// The milliseconds of which every delivery is told.
    traced: std::ops::Range<u64>,
    /// What went wrong first.
    pub(super) complaint: Option<String>,
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8 + 1], 6003))
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        World::with(seed, Scenario::draw(seed))
    }

    pub(super) fn with(seed: u64, scenario: Scenario) -> World {
        let mut world = World {
            network: Network::new(scenario.faults, seed),
            source: Source::new(&scenario, 1, World::clock(0, 0)),
            sinks: Vec::new(),
            wakes: vec![0; scenario.receivers + 1],
            now: 0,
            lives: 0,
            datagrams: 0,
            traced: super::number("TRACE_FROM").unwrap_or(0)..super::number("TRACE").unwrap_or(0),
            complaint: None,
            scenario,
            seed,
        };
        world.sinks.resize_with(world.scenario.receivers, || None);
        for node in 1..=world.scenario.early {
            world.join(node, true);
        }
        world
    }

    /// The nodes' clocks have nothing to do with each other.
    fn clock(now: u64, node: usize) -> Instant {
        Instant::from_nanos(now + 7_777_777_777 * node as u64)
    }

    fn complain(&mut self, what: String) {
        let at = self.now / 1_000;
        self.complaint.get_or_insert(format!("at {at} µs: {what}"));
    }

    fn join(&mut self, node: usize, from_the_start: bool) {
        if self.sinks[node - 1].is_some() {
            return;
        }
        self.lives += 1;
        let seed = self.seed ^ self.lives << 32 ^ node as u64;
        self.sinks[node - 1] = Some(Sink {
            receiver: Receiver::new(self.scenario.receiver(node, seed, from_the_start)),
            streams: BTreeMap::new(),
            ends: Vec::new(),
            life: 0,
            objects: BTreeMap::new(),
            objects_lost: Vec::new(),
            lost: 0,
            asleep: false,
            from_the_start,
        });
        self.source.sender.add_receiver(node as u32 + 1);
        self.wakes[node] = self.now;
    }

    fn leave(&mut self, node: usize) {
        if self.sinks[node - 1].take().is_some() {
            self.source.sender.remove_receiver(node as u32 + 1);
        }
    }

    fn happen(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::Crash(0) => {
                self.lives += 1;
                let instance = self.source.instance + 1;
                let now = World::clock(self.now, 0);
                self.source = Source::new(&self.scenario, instance, now);
                for node in 1..=self.scenario.receivers {
                    if self.sinks[node - 1].is_some() {
                        self.source.sender.add_receiver(node as u32 + 1);
                    }
                }
                self.wakes[0] = self.now;
            }
            Mishap::Crash(node) => {
                self.leave(node);
                self.join(node, false);
            }
            Mishap::Cut(node) => drop(self.network.cut.insert(node)),
            Mishap::Heal(node) => drop(self.network.cut.remove(&node)),
            Mishap::Sleep(node) | Mishap::Wake(node) => {
                if let Some(sink) = &mut self.sinks[node - 1] {
                    sink.asleep = matches!(mishap, Mishap::Sleep(_));
                    self.wakes[node] = self.now;
                }
            }
            Mishap::Leave(node) => self.leave(node),
            Mishap::Join(node) => self.join(node, false),
        }
    }

    /// Runs to the end; what went wrong, if anything did.
    pub(super) fn run(&mut self) -> Result<(), String> {
        let acts = std::mem::take(&mut self.scenario.acts);
        let mishaps = std::mem::take(&mut self.scenario.mishaps);
        self.scenario.mishaps = mishaps.clone();
        let last = |times: Option<u64>| times.unwrap_or(0);
        let end = last(acts.last().map(|a| a.0)).max(last(mishaps.last().map(|m| m.0)));
        let (mut acts, mut mishaps) = (acts.into_iter().peekable(), mishaps.into_iter().peekable());
        loop {
            let times = [
                acts.peek()
                    .filter(|_| self.source.left == 0)
                    .map(|(at, _)| *at),
                mishaps.peek().map(|(at, _)| *at),
                self.network.next_time(),
                self.wakes.iter().min().copied(),
            ];
            let next = times.into_iter().flatten().min().unwrap_or(u64::MAX);
            self.now = self.now.max(next);
            if let Some((_, mishap)) = mishaps.next_if(|(at, _)| *at <= self.now) {
                self.happen(mishap);
            } else if let Some(delivery) = self.network.take(self.now) {
                self.deliver(delivery.from, delivery.to, delivery.bytes);
            } else if self.source.left == 0
                && let Some((_, act)) = acts.next_if(|(at, _)| *at <= self.now)
            {
                self.source.act(World::clock(self.now, 0), act);
                self.wakes[0] = self.now;
            }
            let over = acts.peek().is_none() && mishaps.peek().is_none();
            self.turn(over);
            if let Some(complaint) = self.complaint.take() {
                return Err(complaint);
            }
            if over && self.now > end + self.scenario.settles && self.is_done() {
                return self.verdict();
            }
            if self.now > end + PATIENCE || self.datagrams > STORM {
                return Err(self.story());
            }
        }
    }

    /// Seconds until now, and bytes that the sender sent for each byte of its stream.
    pub(super) fn cost(&self) -> (f64, f64) {
        let bytes = self.source.sender.counters().bytes as f64;
        (self.now as f64 / 1.0e9, bytes / self.source.written as f64)
    }

    /// Every node whose time has come takes its turn.
    fn turn(&mut self, over: bool) {
        for node in 0..self.wakes.len() {
            if self.wakes[node] > self.now {
                continue;
            }
            let clock = World::clock(self.now, node);
            let mut leaving = Vec::new();
            let mut deadline = None;
            if node == 0 {
                let closes = over && self.scenario.closes;
                self.source.turn(clock, closes, &mut leaving);
                deadline = self.source.next_deadline(clock);
            } else if let Some(sink) = &mut self.sinks[node - 1] {
                while let Some(transmit) = sink.receiver.poll_transmit(clock) {
                    leaving.push(transmit);
                }
                deadline = sink.receiver.next_deadline();
                let complaint = sink.drain(&self.source, &self.scenario);
                if let Some(complaint) = complaint {
                    self.complain(format!("receiver {node}: {complaint}"));
                }
            }
            let base = World::clock(0, node);
            self.wakes[node] = match deadline {
                // A deadline that is past would stop the world.
                Some(at) => ((at - base).as_nanos() as u64).max(self.now + 1),
                None => u64::MAX,
            };
            for transmit in leaving {
                self.send(node, &transmit);
            }
        }
    }

    fn send(&mut self, from: usize, transmit: &Transmit) {
        self.datagrams += 1;
        let bytes = transmit.datagram.to_bytes();
        for to in 0..self.wakes.len() {
            let wanted = match transmit.to {
                Destination::Group => true,
                Destination::Node(node) => node == address(to),
            };
            if to != from && wanted {
                self.network.send(self.now, from, to, &bytes);
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: Bytes) {
        let len = bytes.len();
        let packet = match Packet::decode(bytes) {
            Ok(packet) => packet,
            Err(error) => return self.complain(format!("a message does not decode: {error}")),
        };
        if self.traced.contains(&(self.now / 1_000_000)) {
            println!(
                "{} µs: {from} -> {to}: {:?}",
                self.now / 1_000,
                packet.message
            );
        }
        let clock = World::clock(self.now, to);
        if to == 0 {
            self.source.sender.on_packet(clock, address(from), &packet);
        } else if let Some(sink) = &mut self.sinks[to - 1] {
            sink.receiver.on_packet(clock, address(from), packet, len);
        }
        self.wakes[to] = self.now;
    }

    /// Everyone who receives the present life's stream has all of it.
    fn is_done(&self) -> bool {
        let source = &self.source;
        let strict = self.scenario.settles == 0;
        source.left == 0
            && source.sender.is_idle()
            && (source.closed || !self.scenario.closes)
            && self.sinks.iter().flatten().all(|sink| {
                sink.is_done(source) && (!(strict || self.waits_for(sink)) || sink.began(source))
            })
    }

    /// The sender waits for a receiver, and always has.
    fn waits_for(&self, sink: &Sink) -> bool {
        let source = &self.source;
        let waits = self.scenario.sender.slow_receiver != SlowReceiver::Squelch;
        let dropped = source.dropped.contains(&sink.receiver.node());
        let wrote = source.written > 0;
        waits && wrote && sink.from_the_start && !dropped && source.instance == 1
    }

    /// Where the first life's stream begins for a receiver.
    fn began(&self, sink: &Sink) -> Option<u64> {
        sink.streams
            .get(&(1, self.source.stream))
            .map(|places| places.0)
    }

    fn verdict(&self) -> Result<(), String> {
        for (index, sink) in self.sinks.iter().enumerate() {
            let Some(sink) = sink else { continue };
            let node = index as u32 + 2;
            if sink.lost > 0 && self.waits_for(sink) {
                return Err(format!("node {node} lost bytes though it was waited for"));
            }
            if self.waits_for(sink) && self.began(sink).is_some_and(|first| first != 0) {
                return Err(format!("node {node} missed the beginning"));
            }
            let faults = &self.scenario.faults;
            let bad = faults.loss + faults.reorder > 0.0 || faults.delay.1 > 0;
            let rough = self.scenario.is_rough();
            let first = sink.streams.get(&(1, self.source.stream)).map(|s| s.0);
            if !bad && !rough && sink.from_the_start && first.is_some_and(|at| at != 0) {
                return Err(format!(
                    "node {node} did not begin at the beginning: {first:?}"
                ));
            }
            if sink.receiver.counters().malformed > 0 {
                return Err(format!("node {node}: {:?}", sink.receiver.counters()));
            }
        }
        Ok(())
    }

    fn story(&self) -> String {
        let mut story = format!(
            "not done at {} ms after {} datagrams\n{:?}\n",
            self.now / 1_000_000,
            self.datagrams,
            self.scenario
        );
        let source = &self.source;
        story += &format!(
            "sender: life {} written {} left {} closed {} grtt {:?} rate {}\n{:?}\n",
            source.instance,
            source.written,
            source.left,
            source.closed,
            source.sender.grtt(),
            source.sender.rate(),
            source.sender.counters()
        );
        for sink in self.sinks.iter().flatten() {
            if !sink.is_done(source) {
                let state: String = format!("{:?}", sink.receiver).chars().take(2_000).collect();
                story += &format!("{state}\n{:?} of {:?}\n", sink.objects, source.objects);
            }
            story += &format!(
                "receiver {}: done {} streams {:?} ends {:?} lost {}\n{:?}\n",
                sink.receiver.node(),
                sink.is_done(source),
                sink.streams,
                sink.ends,
                sink.lost,
                sink.receiver.counters()
            );
        }
        story
    }
}

impl Source {
    fn new(scenario: &Scenario, instance: u16, now: Instant) -> Source {
        let mut config = scenario.sender.clone();
        config.instance = instance;
        let mut sender = Sender::new(now, config).expect("a scenario's settings are good");
        let stream = sender.open_stream(now, None).expect("it is the first");
        Source {
            sender,
            instance,
            stream,
            written: 0,
            left: 0,
            closed: false,
            objects: BTreeMap::new(),
            squelched: false,
            dropped: Vec::new(),
        }
    }

    fn act(&mut self, now: Instant, act: Act) {
        match act {
            Act::Message(len) => {
                self.left = len;
                self.write(now);
            }
            Act::Object(len, with_info) => {
                let id = self.objects.last_key_value().map_or(1, |(id, _)| id + 1);
                let info = with_info.then(|| bytes(self.instance, id, 0, 8));
                let content = bytes(self.instance, id, 0, len);
                if let Ok(sent) = self.sender.send_object(now, content, info) {
                    assert_eq!(sent, id);
                    self.objects.insert(id, len);
                }
            }
        }
    }

    fn write(&mut self, now: Instant) {
        if self.left == 0 || self.closed {
            return;
        }
        let content = bytes(self.instance, self.stream, self.written, self.left);
        let written = self.sender.write(now, self.stream, &content, true);
        let written = written.expect("the stream is open");
        self.written += written as u64;
        self.left -= written;
    }

    fn turn(&mut self, now: Instant, closes: bool, leaving: &mut Vec<Transmit>) {
        self.write(now);
        if closes && self.left == 0 && !self.closed {
            let closed = self.sender.close_stream(now, self.stream);
            self.closed = closed.expect("the stream is open");
        }
        while let Some(transmit) = self.sender.poll_transmit(now) {
            leaving.push(transmit);
        }
        while let Some(event) = self.sender.poll_event() {
            match event {
                SenderEvent::Squelched { .. } => self.squelched = true,
                SenderEvent::Dropped(node) => self.dropped.push(node),
                _ => {}
            }
        }
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let retry = now + std::time::Duration::from_millis(2);
        let wants = self.left > 0 || !self.closed;
        let retry = wants.then_some(retry).filter(|_| self.left > 0);
        self.sender.next_deadline().into_iter().chain(retry).min()
    }
}

impl Sink {
    /// Takes what there is; what is wrong with it.
    fn drain(&mut self, source: &Source, scenario: &Scenario) -> Option<String> {
        let mut complaint = None;
        while !self.asleep
            && let Some(chunk) = self.receiver.read()
        {
            complaint = complaint.or(self.on_chunk(&chunk, source, scenario));
        }
        while let Some(event) = self.receiver.poll_event() {
            complaint = complaint.or(self.on_event(event, source));
        }
        complaint
    }

    fn on_chunk(&mut self, chunk: &Chunk, source: &Source, scenario: &Scenario) -> Option<String> {
        let expected = bytes(
            chunk.instance,
            chunk.stream,
            chunk.offset,
            chunk.bytes.len(),
        );
        if expected != chunk.bytes {
            return Some(format!(
                "wrong bytes at {} of {}",
                chunk.offset, chunk.instance
            ));
        }
        let key = (chunk.instance, chunk.stream & 0xffff);
        let (_, next) = self
            .streams
            .entry(key)
            .or_insert((chunk.offset, chunk.offset));
        if chunk.offset != *next + chunk.lost {
            return Some(format!(
                "{} follows {next}, {} lost",
                chunk.offset, chunk.lost
            ));
        }
        *next = chunk.offset + chunk.bytes.len() as u64;
        let forgets = scenario.sender.buffer_blocks < 256;
        self.lost += chunk.lost;
        let told = source.squelched && forgets;
        if chunk.lost > 0 && chunk.instance == source.instance && !told {
            return Some(format!(
                "{} bytes were lost, and no one said so",
                chunk.lost
            ));
        }
        None
    }

    fn on_event(&mut self, event: ReceiverEvent, source: &Source) -> Option<String> {
        match event {
            ReceiverEvent::SenderUp { instance, .. } => {
                if instance <= self.life {
                    return Some(format!("life {instance} came after {}", self.life));
                }
                self.life = instance;
            }
            ReceiverEvent::StreamUp { stream, .. }
                if self.life == source.instance && stream & 0xffff != source.stream =>
            {
                return Some(format!("there is no stream {stream}"));
            }
            ReceiverEvent::StreamEnd { stream, .. } => self.ends.push((self.life, stream & 0xffff)),
            ReceiverEvent::Object {
                object,
                info,
                content,
                ..
            } => {
                // Its number as the wire has it: objects of one run never wrap.
                let object = object & 0xffff;
                if content != bytes(self.life, object, 0, content.len())
                    || info.is_some_and(|info| info != bytes(self.life, object, 0, 8))
                {
                    return Some(format!("object {object} is wrong"));
                }
                let len = source.objects.get(&object);
                if self.life == source.instance && len != Some(&content.len()) {
                    return Some(format!("object {object} has {} bytes", content.len()));
                }
                if self.objects.insert((self.life, object), ()).is_some() {
                    return Some(format!("object {object} came twice"));
                }
            }
            ReceiverEvent::ObjectLost { object, .. } => {
                self.objects_lost.push((self.life, object & 0xffff));
                if self.life == source.instance && !source.squelched {
                    return Some(format!("object {object} was lost, and no one said so"));
                }
            }
            _ => {}
        }
        None
    }

    /// Something of the present life's stream has come.
    fn began(&self, source: &Source) -> bool {
        let key = (source.instance, source.stream);
        self.streams.contains_key(&key)
    }

    fn is_done(&self, source: &Source) -> bool {
        let own = |(life, _): &&(u16, u64)| *life == source.instance;
        let mut streams = self.streams.iter().filter(|(key, _)| own(key));
        let stream_done = streams.all(|(key, (_, next))| {
            *next == source.written && (!source.closed || self.ends.contains(key))
        });
        let first = self.objects.keys().filter(own).map(|(_, id)| *id).min();
        let objects = source
            .objects
            .keys()
            .filter(|id| first.is_some_and(|f| **id >= f));
        let got = |id: &&u64| {
            let key = (source.instance, **id);
            self.objects.contains_key(&key) || self.objects_lost.contains(&key)
        };
        stream_done && objects.clone().count() == objects.filter(got).count()
    }
}
