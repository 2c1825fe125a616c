//! Calls that are made until they are answered: for methods that may be executed twice.
//!
//! Which those are is marked, by the `idempotency_level` of a method in its .proto file or by name.
//! A call of a method without a mark is made once.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::method_options::IdempotencyLevel;
use ringmill_ring::{now, random_u64, sleep};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};

use super::whole::{Broken, WholeAnswer, WholeRequest};
use crate::channel::Channel;
use crate::deadline;
use crate::options::Backoff;
use crate::reflection::NotDescriptors;

/// Methods that may be executed more than once to the same effect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdempotentMethods(BTreeSet<String>);

impl IdempotentMethods {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Marks a method by its path, `/package.Service/Method`.
    pub fn mark(mut self, path: &str) -> Self {
        self.0.insert(path.to_owned());
        self
    }

    /// Marks the methods that a `google.protobuf.FileDescriptorSet` calls `IDEMPOTENT` or
    /// `NO_SIDE_EFFECTS`.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn mark_described(mut self, set: &[u8]) -> Result<Self, NotDescriptors> {
        for file in FileDescriptorSet::decode(set)?.file {
            for service in &file.service {
                let marked = service.method.iter().filter(|method| {
                    let level = method
                        .options
                        .as_ref()
                        .map(|options| options.idempotency_level());
                    level.is_some_and(|level| level != IdempotencyLevel::IdempotencyUnknown)
                });
                let dot = if file.package().is_empty() { "" } else { "." };
                self.0.extend(marked.map(|method| {
                    let (package, service) = (file.package(), service.name());
                    format!("/{package}{dot}{service}/{}", method.name())
                }));
            }
        }
        Ok(self)
    }

    /// The method at a path is marked.
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains(path)
    }
}

/// How often, and how long, a call is made anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retries {
    /// Attempts in all; the call's deadline ends them, too.
    pub attempts_max: u32,
    /// Pauses between them.
    pub backoff: Backoff,
    /// Bytes of a request that is kept, and of its answer.
    pub bytes_max: usize,
}

impl Default for Retries {
    fn default() -> Self {
        Retries {
            attempts_max: 10,
            backoff: Backoff {
                initial: Duration::from_millis(50),
                max: Duration::from_secs(5),
                ..Backoff::default()
            },
            bytes_max: 4 << 20,
        }
    }
}

/// A channel on which calls of marked methods are made until they are answered. For methods of one
/// request and one answer: those of streams must not be marked.
///
/// ```
/// use ringmill_rpc::styles::at_least_once::{AtLeastOnce, IdempotentMethods, Retries};
/// use ringmill_rpc::{Channel, ChannelOptions};
/// use tonic_health::pb::health_client::HealthClient;
///
/// let channel = Channel::new("127.0.0.1:50051".parse().unwrap(), ChannelOptions::default());
/// let marks = IdempotentMethods::new().mark("/grpc.health.v1.Health/Check");
/// let client = HealthClient::new(AtLeastOnce::new(channel, marks, Retries::default()));
/// # drop(client);
/// ```
#[derive(Clone, Debug)]
pub struct AtLeastOnce {
    channel: Channel,
    marks: Rc<IdempotentMethods>,
    retries: Retries,
}

impl AtLeastOnce {
    /// Calls over a channel.
    pub fn new(channel: Channel, marks: IdempotentMethods, retries: Retries) -> Self {
        AtLeastOnce {
            channel,
            marks: Rc::new(marks),
            retries,
        }
    }
}

impl Service<Request<Body>> for AtLeastOnce {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut channel = self.channel.clone();
        if !self.marks.contains(request.uri().path()) {
            let once = channel.call(request);
            return Box::pin(async move { Ok(once.await?.map(Body::new)) });
        }
        let retries = self.retries;
        Box::pin(async move {
            let deadline = deadline::of(request.headers())?.map(|time| now() + time);
            let calling = until_answered(channel, request, retries);
            deadline::within(deadline, calling).await
        })
    }
}

async fn until_answered(
    mut channel: Channel,
    request: Request<Body>,
    retries: Retries,
) -> Result<Response<Body>, Status> {
    let request = WholeRequest::keep(request, retries.bytes_max).await?;
    let mut attempt = 1;
    loop {
        let failed = match attempt_once(&mut channel, &request, retries.bytes_max).await {
            Ok(answer) if answer.code() != Code::Unavailable => return Ok(answer.response()),
            Ok(answer) => Ok(answer),
            Err(status) if status.code() != Code::Unavailable => return Err(status),
            Err(status) => Err(status),
        };
        if attempt >= retries.attempts_max {
            return failed.map(|answer| answer.response());
        }
        sleep(retries.backoff.pause(attempt, random_u64())).await;
        attempt += 1;
    }
}

/// One attempt, to the end of its answer.
pub(super) async fn attempt_once(
    channel: &mut Channel,
    request: &WholeRequest,
    bytes_max: usize,
) -> Result<WholeAnswer, Status> {
    let response = channel.call(request.request()).await?;
    let answer = WholeAnswer::keep(response, bytes_max).await;
    answer.map_err(|broken| match broken {
        Broken::By(status) => status,
        Broken::TooLarge => {
            Status::out_of_range(format!("an answer of more than {bytes_max} bytes"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost_types::{
        FileDescriptorProto, MethodDescriptorProto, MethodOptions, ServiceDescriptorProto,
    };

    fn method(name: &str, level: IdempotencyLevel) -> MethodDescriptorProto {
        MethodDescriptorProto {
            name: Some(name.into()),
            options: Some(MethodOptions {
                idempotency_level: Some(level.into()),
                ..MethodOptions::default()
            }),
            ..MethodDescriptorProto::default()
        }
    }

    #[test]
    fn marks_are_read_from_proto_files() {
        let set = FileDescriptorSet {
            file: vec![FileDescriptorProto {
                package: Some("shop".into()),
                service: vec![ServiceDescriptorProto {
                    name: Some("Orders".into()),
                    method: vec![
                        method("Get", IdempotencyLevel::NoSideEffects),
                        method("Put", IdempotencyLevel::Idempotent),
                        method("Add", IdempotencyLevel::IdempotencyUnknown),
                    ],
                    ..ServiceDescriptorProto::default()
                }],
                ..FileDescriptorProto::default()
            }],
        };
        let marks = IdempotentMethods::new()
            .mark_described(&set.encode_to_vec())
            .unwrap();
        assert!(marks.contains("/shop.Orders/Get") && marks.contains("/shop.Orders/Put"));
        assert!(!marks.contains("/shop.Orders/Add"));
        assert!(IdempotentMethods::new().mark_described(b"\xff").is_err());
    }
}
