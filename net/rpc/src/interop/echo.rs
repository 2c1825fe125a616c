//! What the case `custom_metadata` wants of a server: two keys that go back as they came, one in
//! the headers and one in the trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

/// Goes back in the headers.
pub(super) const INITIAL: &str = "x-grpc-test-echo-initial";
/// Goes back in the trailers.
pub(super) const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

/// A service whose answers carry the metadata of their requests.
#[derive(Clone, Debug)]
pub struct EchoMetadata<S>(S);

impl<S> EchoMetadata<S> {
    /// Wraps a service.
    pub fn new(service: S) -> Self {
        EchoMetadata(service)
    }
}

impl<S: NamedService> NamedService for EchoMetadata<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for EchoMetadata<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let initial = request.headers().get(INITIAL).cloned();
        let trailing = request.headers().get(TRAILING).cloned();
        let answering = self.0.call(request);
        Box::pin(async move {
            let Ok(mut response) = answering.await;
            if let Some(value) = initial {
                let name = HeaderName::from_static(INITIAL);
                response.headers_mut().insert(name, value);
            }
            Ok(match trailing {
                Some(trailing) => response.map(|body| Body::new(Trailing { body, trailing })),
                None => response,
            })
        })
    }
}

/// A body with one trailer more.
struct Trailing {
    body: Body,
    trailing: HeaderValue,
}

impl HttpBody for Trailing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        polled.map_ok(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                let name = HeaderName::from_static(TRAILING);
                trailers.insert(name, this.trailing.clone());
            }
            frame
        })
    }
}
