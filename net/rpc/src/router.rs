//! Which service answers a path: `/package.Service/Method`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tonic::server::NamedService;

use crate::deadline::TimedBody;

/// A request's body as services read it: it ends with the call's time, and its errors are statuses.
pub type RequestBody = TimedBody<hyper::body::Incoming>;

type Answer = Pin<Box<dyn Future<Output = Response<Body>>>>;

/// The services of a server, by name. Belongs to one core.
#[derive(Default)]
pub struct Router {
    routes: BTreeMap<&'static str, Box<dyn Route>>,
}

/// One service behind its path.
trait Route {
    fn call(&self, request: Request<RequestBody>) -> Answer;
}

struct Generated<S>(S);

impl<S, B> Route for Generated<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone,
    S::Future: 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    fn call(&self, request: Request<RequestBody>) -> Answer {
        let answering = self.0.clone().call(request);
        Box::pin(async move {
            let Ok(response) = answering.await;
            response.map(Body::new)
        })
    }
}

impl Router {
    /// A router without services.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a service that tonic generated, intercepted or wrapped as may be.
    ///
    /// # Panics
    /// If a service of the same name was added before.
    pub fn service<S, B>(mut self, service: S) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + 'static,
        S::Future: 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<StdError>,
    {
        let before = self.routes.insert(S::NAME, Box::new(Generated(service)));
        assert!(before.is_none(), "two services are named {}", S::NAME);
        self
    }

    /// The names of the services.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.routes.keys().copied()
    }

    /// Lets a service answer a request.
    pub(crate) fn call(&self, request: Request<RequestBody>) -> Answer {
        if let Some(refusal) = refuse(&request) {
            return Box::pin(async move { refusal });
        }
        let path = request.uri().path();
        let name = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let route = name.and_then(|(service, _method)| self.routes.get(service));
        match route {
            Some(route) => route.call(request),
            None => {
                let status = Status::unimplemented(format!("no service at {path}"));
                Box::pin(async move { status.into_http() })
            }
        }
    }
}

/// What is not gRPC at all is refused in HTTP's words.
fn refuse(request: &Request<RequestBody>) -> Option<Response<Body>> {
    let refused = |status, headers: &[(header::HeaderName, &'static str)]| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        for (name, value) in headers {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name.clone(), value);
        }
        Some(response)
    };
    if request.method() != Method::POST {
        return refused(StatusCode::METHOD_NOT_ALLOWED, &[(header::ALLOW, "POST")]);
    }
    let kind = request.headers().get(header::CONTENT_TYPE);
    let rest = kind.and_then(|kind| kind.as_bytes().strip_prefix(b"application/grpc"));
    match rest {
        Some([] | [b'+' | b';', ..]) => None,
        _ => refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, &[]),
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
