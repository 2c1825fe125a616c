//! One of the two brokers: connections to it, and what was learned from its answers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_wire::kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, RequestHeader, RequestKind, ResponseHeader, ResponseKind,
};
use ringmill_wire::kafka_protocol::protocol::{Decodable, Encodable};
use ringmill_wire::{StrBytes, Uuid};

use super::tree::Tree;
use crate::plain::PlainClient;

/// What a broker has named in its answers, by our names for it.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Generations, epochs, sessions, producer ids.
    pub numbers: BTreeMap<String, i64>,
    /// Member ids.
    pub texts: BTreeMap<String, StrBytes>,
    /// Topic ids.
    pub ids: BTreeMap<StrBytes, Uuid>,
}

impl Memory {
    /// A number, or `otherwise` while none is known.
    pub fn number(&self, name: &str, otherwise: i64) -> i64 {
        self.numbers.get(name).copied().unwrap_or(otherwise)
    }

    /// A text, empty while none is known.
    pub fn text(&self, name: &str) -> StrBytes {
        self.texts.get(name).cloned().unwrap_or_default()
    }

    /// A topic's id; that of no topic while it is not known.
    pub fn id(&self, topic: &StrBytes) -> Uuid {
        self.ids.get(topic).copied().unwrap_or(NO_ID)
    }
}

/// No topic's id.
pub const NO_ID: Uuid = Uuid::from_u128(7);

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Which API.
    pub key: ApiKey,
    /// In which version, served or not.
    pub version: i16,
    /// What to send.
    pub body: Body,
}

/// What is sent.
#[derive(Debug, Clone)]
pub enum Body {
    /// A message.
    Message(Box<RequestKind>),
    /// A message whose body is cut, so many bytes before its end, or goes on that much (negative).
    Cut(Box<RequestKind>, i32),
    /// A whole frame, its length included.
    Frame(Bytes),
}

/// What came of a request.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// An answer.
    Answer(Box<ResponseKind>, Tree),
    /// An answer that cannot be read as one to this request.
    Unreadable(String),
    /// The connection goes on, without an answer.
    Nothing,
    /// No answer came within the client's time-out.
    Silent,
    /// The broker closed the connection.
    Closed,
}

impl Outcome {
    /// The whole as a tree, so that outcomes of different kinds can be compared.
    pub fn tree(&self) -> Tree {
        match self {
            Self::Answer(_, tree) => tree.clone(),
            Self::Unreadable(why) => Tree::Leaf(format!("unreadable: {why}")),
            Self::Nothing => Tree::Leaf("nothing".to_owned()),
            Self::Silent => Tree::Leaf("silent".to_owned()),
            Self::Closed => Tree::Leaf("closed".to_owned()),
        }
    }
}

/// Marks the probe that tells "nothing was answered" from "not yet".
const PROBE: i32 = i32::MAX;

/// One broker.
#[derive(Debug)]
pub struct Side {
    addr: SocketAddr,
    connections: BTreeMap<u8, PlainClient>,
    correlation_id: i32,
    /// What its answers have told.
    pub memory: Memory,
}

/// The request cannot be written in that version: a step that is left out.
#[derive(Debug)]
pub struct Unsayable;

impl Side {
    /// A broker that listens there.
    pub fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            connections: BTreeMap::new(),
            correlation_id: 0,
            memory: Memory::default(),
        }
    }

    /// Forgets what was learned, and closes every connection.
    pub fn restart(&mut self) {
        self.connections.clear();
        self.memory = Memory::default();
    }

    /// Sends a request. Returns its correlation id.
    pub fn send(&mut self, connection: u8, ask: &Ask) -> io::Result<Result<i32, Unsayable>> {
        self.correlation_id += 1;
        let Some(mut frame) = frame(ask, self.correlation_id) else {
            return Ok(Err(Unsayable));
        };
        if !always_answered(ask) {
            let request = ApiVersionsRequest::default();
            let request = RequestKind::ApiVersions(request);
            let probe = message_frame(ApiKey::ApiVersions, 0, &request, PROBE, 0);
            frame.extend_from_slice(&probe.expect("the probe can be written"));
        }
        let stream = self.connect(connection)?.stream();
        // A broker that has closed the connection shows when its answer is read.
        let _ = stream.write_all(&frame);
        Ok(Ok(match &ask.body {
            Body::Frame(frame) => frame
                .get(8..12)
                .and_then(|id| id.try_into().ok())
                .map_or(0, i32::from_be_bytes),
            Body::Message(_) | Body::Cut(..) => self.correlation_id,
        }))
    }

    /// Waits for what comes of a request that was sent.
    pub fn receive(&mut self, connection: u8, ask: &Ask, sent: i32) -> io::Result<Outcome> {
        let probed = !always_answered(ask);
        let client = self.connect(connection)?;
        let frame = match client.read_frame() {
            Ok(frame) => frame,
            Err(error) if timed_out(&error) => {
                self.disconnect(connection);
                return Ok(Outcome::Silent);
            }
            Err(_) => {
                self.disconnect(connection);
                return Ok(Outcome::Closed);
            }
        };
        let id = frame.first_chunk().map(|id| i32::from_be_bytes(*id));
        if id == Some(PROBE) && probed {
            return Ok(Outcome::Nothing);
        }
        if probed {
            // either the probe's answer, or the end
            if client.read_frame().is_err() {
                self.disconnect(connection);
            }
        }
        if id != Some(sent) {
            return Ok(Outcome::Unreadable(
                "an answer to another request".to_owned(),
            ));
        }
        Ok(decode(ask, frame))
    }

    /// A connection has ended. As clients do, what was begun by it begins anew.
    fn disconnect(&mut self, connection: u8) {
        self.connections.remove(&connection);
        self.memory.numbers.remove(super::fetch::SESSION);
        self.memory.numbers.remove(super::fetch::EPOCH);
    }

    fn connect(&mut self, connection: u8) -> io::Result<&mut PlainClient> {
        if !self.connections.contains_key(&connection) {
            let client = PlainClient::connect(self.addr)?;
            self.connections.insert(connection, client);
        }
        Ok(self
            .connections
            .get_mut(&connection)
            .expect("just inserted"))
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Whether silence would be a fault of the broker.
fn always_answered(ask: &Ask) -> bool {
    match &ask.body {
        Body::Message(message) => match &**message {
            RequestKind::Produce(produce) => produce.acks != 0,
            _ => true,
        },
        Body::Cut(..) | Body::Frame(_) => false,
    }
}

fn frame(ask: &Ask, correlation_id: i32) -> Option<BytesMut> {
    match &ask.body {
        Body::Message(message) => message_frame(ask.key, ask.version, message, correlation_id, 0),
        Body::Cut(message, cut) => {
            message_frame(ask.key, ask.version, message, correlation_id, *cut)
        }
        Body::Frame(frame) => Some(BytesMut::from(&frame[..])),
    }
}

fn message_frame(
    key: ApiKey,
    version: i16,
    message: &RequestKind,
    correlation_id: i32,
    cut: i32,
) -> Option<BytesMut> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("differential")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    let header_version = key.request_header_version(version);
    header.encode(&mut frame, header_version).ok()?;
    message.encode(&mut frame, version).ok()?;
    match usize::try_from(cut) {
        Ok(cut) => frame.truncate(frame.len().saturating_sub(cut).max(12)),
        Err(_) => frame.put_bytes(0, cut.unsigned_abs() as usize),
    }
    let length = i32::try_from(frame.len() - 4).ok()?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Some(frame)
}

fn decode(ask: &Ask, mut frame: Bytes) -> Outcome {
    let mut version = ask.version;
    let range = ask.key.valid_versions();
    if ask.key == ApiKey::ApiVersions && version > range.max {
        version = 0; // KIP-511: what a client can read that knows nothing of the broker
    }
    let read = (|| {
        let header = ask.key.response_header_version(version);
        ResponseHeader::decode(&mut frame, header).map_err(|e| e.to_string())?;
        let response = ResponseKind::decode(ask.key, &mut frame, version);
        let response = response.map_err(|e| e.to_string())?;
        if !frame.is_empty() {
            return Err(format!("{} bytes are left", frame.len()));
        }
        let tree = Tree::of(&response).map_err(|e| e.to_string())?;
        Ok::<_, String>((response, tree))
    })();
    match read {
        Ok((response, tree)) => Outcome::Answer(Box::new(response), tree),
        Err(why) => Outcome::Unreadable(why),
    }
}
