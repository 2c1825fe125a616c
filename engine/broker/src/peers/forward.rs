//! What only the quorum's leader can do, asked of any node: it goes to the leader in an Envelope
//! (KIP-590), and is answered when this node goes by the metadata that it has led to. On core 0.
//!
//! An Envelope's response has no field for which metadata that is; it stands in a tagged field, which
//! others pass over.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ringmill_ring::{now, sleep, timeout};
use ringmill_wire::api::ApiKey;
use ringmill_wire::control::{
    EncodeError, Request, decode_request, encode_any_request, encode_response,
};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::frame::LENGTH_LEN;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::{
    BrokerRegistrationResponse, EnvelopeRequest, EnvelopeResponse,
};

use super::{Destination, Lane};
use crate::shard::Shard;

/// How long a request waits for a leader, all attempts together.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for what a node asks by itself.
const OWN_PATIENCE: Duration = Duration::from_secs(3);
/// How long the leader has to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long this node waits for the metadata that an answer is about.
const CATCH_UP_TIME: Duration = Duration::from_secs(5);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// The tag of the metadata's version in an Envelope's response, far from Kafka's.
const TAG_VERSION: i32 = 20_001;
/// The principal of what a node asks by itself.
const OWN: &[u8] = b"node";

/// What has become of a request that changes the metadata.
pub(crate) enum Outcome {
    /// This is the answer's frame, and the version of the metadata that it is about.
    Done(Bytes, u64),
    /// Nothing has changed: another leads, or nobody.
    NotLed,
}

/// Who leads, seen from here.
pub(crate) enum Leader {
    /// This node.
    Here,
    /// Another.
    There(Destination),
    /// None is known.
    Nobody,
}

impl Shard {
    /// Who leads the quorum.
    pub(crate) fn leader(&self) -> Leader {
        let view = self.metadata_store().view();
        let Some(leader) = view.leader else {
            return Leader::Nobody;
        };
        if leader == self.config.node_id {
            return Leader::Here;
        }
        match view.nodes.get(&leader) {
            Some(address) => Leader::There(Destination {
                lane: Lane::Control,
                node: leader,
                address: address.clone(),
            }),
            None => Leader::Nobody,
        }
    }

    /// Has the leader do what a request asks, wherever it is, and waits until this node goes by it.
    /// None if there is no leader for too long.
    pub(crate) async fn at_leader(
        self: &Rc<Self>,
        header: &RequestHeader,
        request: &Request,
        is_own: bool,
    ) -> Result<Option<Bytes>, EncodeError> {
        let end = now() + if is_own { OWN_PATIENCE } else { PATIENCE };
        loop {
            let outcome = match self.leader() {
                Leader::Here => {
                    let deciding = self.decide_as_leader(header, request.clone(), is_own);
                    // A leader that is cut off knows of no other, and decides nothing.
                    match timeout(end - now(), deciding).await {
                        Ok(outcome) => outcome?,
                        Err(_) => return Ok(None),
                    }
                }
                Leader::There(leader) => self.pass_on(&leader, header, request, is_own).await?,
                Leader::Nobody => Outcome::NotLed,
            };
            match outcome {
                Outcome::Done(frame, version) => {
                    let reached = self.published.reached(version);
                    if timeout(CATCH_UP_TIME, reached).await.is_err() {
                        tracing::warn!(version, "this node lags behind the metadata");
                    }
                    return Ok(Some(frame));
                }
                Outcome::NotLed if now() >= end || self.is_stopping() => return Ok(None),
                Outcome::NotLed => sleep(PAUSE).await,
            }
        }
    }

    async fn pass_on(
        &self,
        leader: &Destination,
        header: &RequestHeader,
        request: &Request,
        is_own: bool,
    ) -> Result<Outcome, EncodeError> {
        let inner = encode_any_request(header, request)?.slice(LENGTH_LEN..);
        let envelope = EnvelopeRequest::default()
            .with_request_data(inner)
            .with_request_principal(is_own.then(|| Bytes::from_static(OWN)));
        let answer = match self.peers.call(leader, &envelope, ANSWER_TIME).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(node = leader.node, %error, "the leader does not answer");
                return Ok(Outcome::NotLed);
            }
        };
        let version = answer.unknown_tagged_fields.get(&TAG_VERSION);
        let version = version.and_then(|bytes| bytes.as_ref().try_get_u64().ok());
        match (answer.error_code, answer.response_data) {
            (0, Some(data)) => Ok(Outcome::Done(framed(&data), version.unwrap_or(0))),
            _ => Ok(Outcome::NotLed),
        }
    }

    /// What another node has passed on.
    pub(super) async fn open_envelope(
        self: &Rc<Self>,
        envelope: EnvelopeRequest,
    ) -> Result<EnvelopeResponse, EncodeError> {
        let failed = |code: ErrorCode| {
            Ok(EnvelopeResponse::default()
                .with_response_data(None)
                .with_error_code(code.code()))
        };
        let is_own = envelope.request_principal.as_deref() == Some(OWN);
        let Ok((header, body)) = RequestHeader::decode(&envelope.request_data) else {
            return failed(ErrorCode::InvalidRequest);
        };
        let Ok(request) = decode_request(&header, &body) else {
            return failed(ErrorCode::InvalidRequest);
        };
        if !is_for_leader(header.key) {
            return failed(ErrorCode::InvalidRequest);
        }
        if !self.is_leader() {
            return failed(ErrorCode::NotController);
        }
        match self.decide_as_leader(&header, request, is_own).await? {
            Outcome::NotLed => failed(ErrorCode::NotController),
            Outcome::Done(frame, version) => {
                let version = Bytes::copy_from_slice(&version.to_be_bytes());
                let mut response =
                    EnvelopeResponse::default().with_response_data(Some(frame.slice(LENGTH_LEN..)));
                response.unknown_tagged_fields.insert(TAG_VERSION, version);
                Ok(response)
            }
        }
    }

    /// Serves what nodes ask of each other.
    pub(crate) async fn serve_node(
        self: &Rc<Self>,
        header: RequestHeader,
        request: Request,
    ) -> Result<Bytes, EncodeError> {
        match request {
            Request::Envelope(envelope) => {
                encode_response(&header, &self.open_envelope(envelope).await?)
            }
            Request::BrokerHeartbeat(request) => {
                encode_response(&header, &self.hear_node(&request).await)
            }
            Request::AllocateProducerIds(request) => {
                encode_response(&header, &self.allocate_producer_ids(&request).await)
            }
            Request::AlterPartition(request) => {
                encode_response(&header, &self.alter_partitions(request).await)
            }
            // It comes from a node that does not know the leader yet.
            Request::BrokerRegistration(registration) => {
                let leader = match self.leader() {
                    Leader::There(leader) => leader,
                    Leader::Here | Leader::Nobody => {
                        let response = self.register_node(&registration).await;
                        return encode_response(&header, &response);
                    }
                };
                let request = Request::BrokerRegistration(registration);
                match self.pass_on(&leader, &header, &request, true).await? {
                    Outcome::Done(frame, _) => Ok(frame),
                    Outcome::NotLed => {
                        let response = BrokerRegistrationResponse::default()
                            .with_error_code(ErrorCode::NotController.code());
                        encode_response(&header, &response)
                    }
                }
            }
            other => unreachable!("{:?} is not asked by nodes", other.key()),
        }
    }
}

/// Whether only the leader can do what is asked.
fn is_for_leader(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreatePartitions
            | ApiKey::AlterConfigs
            | ApiKey::AlterClientQuotas
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::ElectLeaders
            | ApiKey::AlterPartitionReassignments
            | ApiKey::ListPartitionReassignments
            | ApiKey::BrokerRegistration
            | ApiKey::DescribeQuorum
            | ApiKey::UnregisterBroker
            | ApiKey::UpdateFeatures
    )
}

/// A response as the frame that it came in.
fn framed(data: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(LENGTH_LEN + data.len());
    // It has come in a frame, whose length is larger.
    frame.extend_from_slice(&(data.len() as u32).to_be_bytes());
    frame.extend_from_slice(data);
    frame.freeze()
}
