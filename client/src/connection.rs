//! One connection to one broker: requests go out as they come, several in flight, answers come back
//! in order.
//!
//! A shell around [`Pipeline`]: one task sends whatever has gathered since its last send in a single
//! call, one receives. A request that is not answered in time ends the connection, since nothing
//! after it could be answered either.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{self, Call, DecodeError, EncodeError};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use thiserror::Error;

use crate::config::ClientConfig;
use crate::pipeline::Pipeline;
use crate::transport::{JoinHandle, Notify, Stream, connect, spawn, split_host_port, timeout};
use crate::versions::{VersionError, Versions};

/// Why there is no connection to a broker.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConnectError {
    /// The address is not `HOST:PORT`.
    #[error("{0:?} is no address of a broker: write HOST:PORT, such as 127.0.0.1:9092")]
    Address(String),
    /// The cluster has no such broker (any more).
    #[error("the cluster has no broker {0}")]
    Unknown(i32),
    /// The system refused.
    #[error("cannot connect to {address}: {cause}")]
    Io {
        /// The broker's.
        address: String,
        /// The system's words.
        cause: String,
    },
    /// It took too long.
    #[error("no connection to {address} within {after:?}: is it a Kafka broker, and in reach?")]
    TimedOut {
        /// The broker's.
        address: String,
        /// The limit.
        after: Duration,
    },
    /// There is a peer, but it does not agree on versions.
    #[error("{address} was reached, but its ApiVersions answer was not understood: {cause}")]
    Handshake {
        /// The broker's.
        address: String,
        /// What went wrong.
        cause: String,
    },
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke before the answer came; the broker may have done what was asked.
    #[error("the connection to {address} broke: {cause}")]
    Broken {
        /// The broker's.
        address: String,
        /// How.
        cause: String,
    },
    /// The answer did not come in time; the broker may have done what was asked.
    #[error("{address} did not answer {api} within {after:?}")]
    TimedOut {
        /// The broker's.
        address: String,
        /// The request's API.
        api: &'static str,
        /// The limit.
        after: Duration,
    },
    /// Broker and client share no version.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The request cannot be written in the version shared.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The answer cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The answer, of an API with a codec of its own, cannot be read.
    #[error("{api} answer: {cause}")]
    Malformed {
        /// The API.
        api: &'static str,
        /// What is wrong.
        cause: String,
    },
}

impl CallError {
    /// Whether another attempt may succeed.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect(error) => !matches!(error, ConnectError::Address(_)),
            Self::Broken { .. } | Self::TimedOut { .. } => true,
            Self::Version(_) | Self::Encode(_) | Self::Decode(_) | Self::Malformed { .. } => false,
        }
    }
}

/// The handshake's version: the first with names for the client's software (KIP-511).
const HANDSHAKE_VERSION: i16 = 3;

/// A connection; clones share it. It ends when the last is dropped.
#[derive(Clone)]
pub(crate) struct Connection(Rc<Handle>);

/// Ends the tasks with the last user, who does not know of them.
struct Handle(Rc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close("closed by this client");
    }
}

struct Shared {
    stream: Stream,
    address: String,
    client_id: StrBytes,
    pipeline: RefCell<Pipeline<oneshot::Sender<Bytes>>>,
    outgoing: RefCell<Vec<Bytes>>,
    /// There is something to send.
    bell: Notify,
    /// What was to be sent is with the kernel, or never will be.
    sent: Notify,
    versions: RefCell<Versions>,
    /// Why the connection is over.
    closed: RefCell<Option<String>>,
    tasks: RefCell<Vec<JoinHandle>>,
}

/// An answer on its way.
pub(crate) struct Reply {
    answer: oneshot::Receiver<Bytes>,
    shared: Rc<Shared>,
    api: &'static str,
}

impl Connection {
    /// Connects to `address` (`HOST:PORT`) and learns what the broker serves.
    pub(crate) async fn open(address: &str, config: &ClientConfig) -> Result<Self, ConnectError> {
        let after = config.connect_timeout;
        let opened = timeout(after, Self::open_untimed(address, config)).await;
        opened.unwrap_or_else(|_| {
            Err(ConnectError::TimedOut {
                address: address.to_owned(),
                after,
            })
        })
    }

    async fn open_untimed(address: &str, config: &ClientConfig) -> Result<Self, ConnectError> {
        let (host, port) =
            split_host_port(address).ok_or_else(|| ConnectError::Address(address.to_owned()))?;
        let stream = connect(host, port)
            .await
            .map_err(|error| ConnectError::Io {
                address: address.to_owned(),
                cause: error.to_string(),
            })?;
        let connection = Self::start(stream, address, config);
        let versions = connection.handshake(config).await;
        let response = versions.map_err(|cause| ConnectError::Handshake {
            address: address.to_owned(),
            cause,
        })?;
        *connection.0.0.versions.borrow_mut() = Versions::of(&response);
        Ok(connection)
    }

    fn start(stream: Stream, address: &str, config: &ClientConfig) -> Self {
        let shared = Rc::new(Shared {
            stream,
            address: address.to_owned(),
            client_id: StrBytes::from_string(config.client_id.clone()),
            pipeline: RefCell::new(Pipeline::new(config.max_response_bytes)),
            outgoing: RefCell::default(),
            bell: Notify::new(),
            sent: Notify::new(),
            versions: RefCell::default(),
            closed: RefCell::new(None),
            tasks: RefCell::default(),
        });
        let tasks = [
            spawn(send_all(shared.clone())),
            spawn(receive_all(shared.clone())),
        ];
        shared.tasks.borrow_mut().extend(tasks);
        Self(Rc::new(Handle(shared)))
    }

    /// Asks for the broker's versions; a broker too old for the question answers in version 0, and
    /// is asked again in that (KIP-511).
    async fn handshake(&self, config: &ClientConfig) -> Result<ApiVersionsResponse, String> {
        let named = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("ringmill"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let limit = config.request_timeout;
        let frame = self.exchange_at(HANDSHAKE_VERSION, &named, limit).await?;
        let decode = |version| control::decode_response::<ApiVersionsRequest>(version, &frame);
        let response = match decode(HANDSHAKE_VERSION) {
            Ok(response) => response,
            Err(error) => match decode(0) {
                Ok(old) if old.error_code == ErrorCode::UnsupportedVersion.code() => {
                    let plain = ApiVersionsRequest::default();
                    let frame = self.exchange_at(0, &plain, limit).await?;
                    let response = control::decode_response::<ApiVersionsRequest>(0, &frame);
                    response.map_err(|error| error.to_string())?
                }
                _ => return Err(error.to_string()),
            },
        };
        match ErrorCode::from_code(response.error_code) {
            Some(ErrorCode::None) => Ok(response),
            Some(code) => Err(code.to_string()),
            None => Err(format!("unknown error code {}", response.error_code)),
        }
    }

    async fn exchange_at(
        &self,
        version: i16,
        request: &ApiVersionsRequest,
        limit: Duration,
    ) -> Result<Bytes, String> {
        let encode = |header: &RequestHeader| Ok(vec![control::encode_request(header, request)?]);
        let reply = self.send(ApiKey::ApiVersions, version, encode);
        let answer = match reply {
            Ok(reply) => reply.within(limit).await,
            Err(error) => Err(error),
        };
        answer.map_err(|error| error.to_string())
    }

    /// The highest version of an API that both sides know, at most `cap`.
    pub(crate) fn version(&self, key: ApiKey, cap: i16) -> Result<i16, VersionError> {
        self.0.0.versions.borrow().pick(key, cap)
    }

    /// The level of a feature of the cluster's, 0 if it has it not (KIP-584).
    pub(crate) fn feature(&self, name: &str) -> i16 {
        self.0.0.versions.borrow().feature(name)
    }

    /// Whether the connection is over.
    /// Its broker, as `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.0.0.address
    }

    /// Ends it, for everybody who waits for an answer.
    pub(crate) fn give_up(&self, cause: &str) {
        self.0.0.close(cause);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.0.closed.borrow().is_some()
    }

    /// Sends a control request in the highest common version and waits for its answer.
    pub(crate) async fn call<R: Call>(
        &self,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, CallError> {
        let version = self.version(R::KEY, i16::MAX)?;
        self.call_at(version, request, limit).await
    }

    /// Sends a control request in a given version and waits for its answer.
    pub(crate) async fn call_at<R: Call>(
        &self,
        version: i16,
        request: &R,
        limit: Duration,
    ) -> Result<R::Response, CallError> {
        let encode = |header: &RequestHeader| Ok(vec![control::encode_request(header, request)?]);
        let frame = self.send(R::KEY, version, encode)?.within(limit).await?;
        Ok(control::decode_response::<R>(version, &frame)?)
    }

    /// Sends a request that will be answered: queued at once, so that requests leave in the order
    /// of these calls.
    pub(crate) fn send(
        &self,
        key: ApiKey,
        version: i16,
        encode: impl FnOnce(&RequestHeader) -> Result<Vec<Bytes>, CallError>,
    ) -> Result<Reply, CallError> {
        let shared = &self.0.0;
        let id = self.queue(key, version, encode)?;
        let (sender, answer) = oneshot::channel();
        shared.pipeline.borrow_mut().on_sent(id, sender);
        Ok(Reply {
            answer,
            shared: shared.clone(),
            api: key.api().name,
        })
    }

    /// Sends a request that the broker does not answer (a produce request with acks=0).
    pub(crate) fn post(
        &self,
        key: ApiKey,
        version: i16,
        encode: impl FnOnce(&RequestHeader) -> Result<Vec<Bytes>, CallError>,
    ) -> Result<(), CallError> {
        self.queue(key, version, encode).map(drop)
    }

    /// Waits until at most `most` bytes are queued: the only brake on requests without an answer.
    pub(crate) async fn sent_down_to(&self, most: usize) {
        let shared = &self.0.0;
        loop {
            let sent = shared.sent.notified();
            let queued: usize = shared.outgoing.borrow().iter().map(Bytes::len).sum();
            if queued <= most {
                return;
            }
            sent.await;
        }
    }

    fn queue(
        &self,
        key: ApiKey,
        version: i16,
        encode: impl FnOnce(&RequestHeader) -> Result<Vec<Bytes>, CallError>,
    ) -> Result<i32, CallError> {
        let shared = &self.0.0;
        if let Some(cause) = &*shared.closed.borrow() {
            return Err(shared.broken(cause));
        }
        let correlation_id = shared.pipeline.borrow_mut().next_id();
        let parts = encode(&RequestHeader {
            key,
            version,
            correlation_id,
            client_id: Some(shared.client_id.clone()),
        })?;
        shared.outgoing.borrow_mut().extend(parts);
        shared.bell.notify_one();
        Ok(correlation_id)
    }
}

impl Reply {
    /// Waits for the response's frame for at most `limit`, after which the connection ends.
    pub(crate) async fn within(self, limit: Duration) -> Result<Bytes, CallError> {
        match timeout(limit, self.answer).await {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(oneshot::Canceled)) => {
                let cause = self.shared.closed.borrow().clone().unwrap_or_default();
                Err(self.shared.broken(&cause))
            }
            Err(_) => {
                let error = CallError::TimedOut {
                    address: self.shared.address.clone(),
                    api: self.api,
                    after: limit,
                };
                self.shared.close(&error.to_string());
                Err(error)
            }
        }
    }
}

impl Shared {
    fn broken(&self, cause: &str) -> CallError {
        CallError::Broken {
            address: self.address.clone(),
            cause: cause.to_owned(),
        }
    }

    /// Ends the connection; the first reason stays.
    fn close(&self, cause: &str) {
        self.closed
            .borrow_mut()
            .get_or_insert_with(|| cause.to_owned());
        for task in self.tasks.take() {
            task.abort();
        }
        let waiting = self.pipeline.borrow_mut().close();
        drop(waiting);
        self.outgoing.take();
        self.sent.notify_all();
    }
}

async fn send_all(shared: Rc<Shared>) {
    loop {
        let parts = shared.outgoing.take();
        if parts.is_empty() {
            shared.sent.notify_all();
            shared.bell.notified().await;
        } else if let Err(error) = shared.stream.send(parts).await {
            return shared.close(&error.to_string());
        }
    }
}

async fn receive_all(shared: Rc<Shared>) {
    let error = loop {
        let mut buffer = shared.pipeline.borrow_mut().take_buffer();
        let received = shared.stream.recv(&mut buffer).await;
        shared.pipeline.borrow_mut().on_received(buffer);
        match received {
            Ok(0) => break "closed by the broker".to_owned(),
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
        loop {
            let answer = shared.pipeline.borrow_mut().next_answer();
            match answer {
                // the receiver may have given up
                Ok(Some((waiter, frame))) => drop(waiter.send(frame)),
                Ok(None) => break,
                Err(error) => return shared.close(&error.to_string()),
            }
        }
    };
    shared.close(&error);
}
