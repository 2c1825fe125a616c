//! The plain client on the ring, for simulated worlds: one request at a time, every answer as it
//! came, an answer that is late is an error.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringmill_ring::{TcpStream, timeout};
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{self, Call};
use ringmill_wire::fetch::{FetchRequest, FetchResponse, FetchedPartition};
use ringmill_wire::frame::{Frame, split_frame};
use ringmill_wire::header::{RequestHeader, response_correlation_id};
use ringmill_wire::produce::{ProduceRequest, ProduceResponse, ProducedPartition};

use crate::ask;
use crate::plain::PlainError;

/// Virtual time that an answer may take.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const MAX_FRAME: usize = 64 << 20;

/// One connection.
pub(super) struct RingClient {
    stream: TcpStream,
    addr: SocketAddr,
    received: BytesMut,
    correlation_id: i32,
    client_id: &'static str,
    /// How long it waits for an answer.
    patience: Duration,
}

impl RingClient {
    pub(super) async fn connect(addr: SocketAddr) -> Result<Self, PlainError> {
        Self::connect_as(addr, "plain").await
    }

    pub(super) async fn connect_as(
        addr: SocketAddr,
        client_id: &'static str,
    ) -> Result<Self, PlainError> {
        Self::connect_for(addr, client_id, ANSWER_WITHIN).await
    }

    /// The same with another patience.
    pub(super) async fn connect_for(
        addr: SocketAddr,
        client_id: &'static str,
        patience: Duration,
    ) -> Result<Self, PlainError> {
        let connected = timeout(patience, TcpStream::connect(addr)).await;
        let stream = connected.map_err(std::io::Error::from)??;
        Ok(Self {
            stream,
            addr,
            received: BytesMut::new(),
            correlation_id: 0,
            client_id,
            patience,
        })
    }

    /// Whom it is connected to.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    fn header(&mut self, key: ApiKey, version: i16) -> RequestHeader {
        self.correlation_id += 1;
        RequestHeader {
            client_id: Some(StrBytes::from_static_str(self.client_id)),
            ..ask::header(key, version, self.correlation_id)
        }
    }

    async fn exchange(
        &mut self,
        header: &RequestHeader,
        request: Vec<Bytes>,
    ) -> Result<Bytes, PlainError> {
        self.send(request).await?;
        self.answer(header).await
    }

    async fn send(&mut self, request: Vec<Bytes>) -> Result<(), PlainError> {
        let sent = timeout(self.patience, self.stream.send(request)).await;
        sent.map_err(std::io::Error::from)??;
        Ok(())
    }

    /// The next answer, which must be to this request.
    async fn answer(&mut self, header: &RequestHeader) -> Result<Bytes, PlainError> {
        let answered = timeout(self.patience, async {
            loop {
                let split = split_frame(&mut self.received, MAX_FRAME);
                match split.map_err(|e| PlainError::Unexpected(e.to_string()))? {
                    Frame::Complete(frame) => return Ok::<_, PlainError>(frame),
                    Frame::Partial { .. } => {}
                }
                if self.stream.recv(&mut self.received).await? == 0 {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                }
            }
        });
        let frame: Bytes = answered.await.map_err(std::io::Error::from)??;
        let id = response_correlation_id(&frame)?;
        if id != header.correlation_id {
            let expected = header.correlation_id;
            return Err(PlainError::Unexpected(format!(
                "request {id} instead of {expected}"
            )));
        }
        Ok(frame)
    }

    pub(super) async fn call<R: Call>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, PlainError> {
        let header = self.header(R::KEY, version);
        let frame = control::encode_request(&header, request)?;
        let frame = self.exchange(&header, vec![frame]).await?;
        Ok(control::decode_response::<R>(version, &frame)?)
    }

    pub(super) async fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> Result<i16, PlainError> {
        let request = ask::create_topic(name, partitions, configs);
        ask::created(&self.call(ask::CREATE_TOPICS_VERSION, &request).await?)
    }

    pub(super) async fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        records: Bytes,
    ) -> Result<ProducedPartition, PlainError> {
        let header = self.header(ApiKey::Produce, ask::PRODUCE_VERSION);
        let request = ask::produce(&header, topic, partition, acks, records)?;
        ask::produced(&self.exchange(&header, request).await?)
    }

    pub(super) async fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: i32,
    ) -> Result<FetchedPartition<Bytes>, PlainError> {
        let header = self.header(ApiKey::Fetch, ask::FETCH_VERSION);
        let request = ask::fetch(&header, topic, partition, offset, max_bytes, 500)?;
        ask::fetched(&self.exchange(&header, vec![request]).await?)
    }

    pub(super) async fn offset_for(
        &mut self,
        topic: &str,
        partition: i32,
        timestamp: i64,
    ) -> Result<i64, PlainError> {
        self.offset_in_epoch((topic, partition, timestamp), -1)
            .await
    }

    /// The same of a leader of this epoch alone (KIP-320).
    pub(super) async fn offset_in_epoch(
        &mut self,
        (topic, partition, timestamp): (&str, i32, i64),
        epoch: i32,
    ) -> Result<i64, PlainError> {
        let mut request = ask::list_offsets(topic, partition, timestamp);
        let partitions = request.topics.iter_mut().flat_map(|t| &mut t.partitions);
        partitions.for_each(|partition| partition.current_leader_epoch = epoch);
        ask::listed(&self.call(ask::LIST_OFFSETS_VERSION, &request).await?)
    }

    /// Whole produce requests, all on their way before the first is answered. The answers, up to the
    /// first that does not come.
    pub(super) async fn produce_all(
        &mut self,
        version: i16,
        requests: &[ProduceRequest],
    ) -> (Vec<ProduceResponse>, Option<PlainError>) {
        let mut answers = Vec::new();
        let done = async {
            let mut headers = Vec::new();
            for request in requests {
                let header = self.header(ApiKey::Produce, version);
                self.send(request.encode(&header)?).await?;
                headers.push(header);
            }
            for header in headers {
                let frame = self.answer(&header).await?;
                answers.push(ProduceResponse::decode(version, &frame)?);
            }
            Ok::<_, PlainError>(())
        };
        let failed = done.await.err();
        (answers, failed)
    }

    /// A whole fetch request and its answer.
    pub(super) async fn fetch_with(
        &mut self,
        version: i16,
        request: &FetchRequest,
    ) -> Result<FetchResponse<Bytes>, PlainError> {
        let header = self.header(ApiKey::Fetch, version);
        let frame = self
            .exchange(&header, vec![request.encode(&header)?])
            .await?;
        Ok(FetchResponse::<Bytes>::decode(version, &frame)?)
    }
}
