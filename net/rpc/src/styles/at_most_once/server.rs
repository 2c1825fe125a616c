//! The server's half: what was executed is not executed again.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use ringmill_ring::{Notify, now, random_u64, spawn};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, StdError};
use tonic::server::NamedService;

use super::headers::{CallName, Refusal};
use super::rules::{Decision, Rules, Window};
use crate::deadline;
use crate::router::RequestBody;
use crate::styles::whole::{Broken, WholeAnswer, WholeRequest};

/// What a server's core remembers of named calls, of all services that it is given to. Clones
/// share it.
///
/// ```
/// use ringmill_ring::{RingConfig, run};
/// use ringmill_rpc::styles::at_most_once::{AtMostOnceServer, Window};
/// use ringmill_rpc::{Health, Router};
///
/// run(RingConfig::default(), async {
///     let once = AtMostOnceServer::new(Window::default());
///     let router = Router::new().service(once.deduplicated(Health::new().server()));
///     assert_eq!(router.names().count(), 1);
/// }).unwrap();
/// ```
#[derive(Clone)]
pub struct AtMostOnceServer(Rc<Shared>);

struct Shared {
    window: Window,
    /// This start of the server: any number but 0.
    start: u64,
    rules: RefCell<Rules<Rc<WholeAnswer>>>,
    answered: Notify,
}

impl AtMostOnceServer {
    /// A memory without calls.
    ///
    /// # Panics
    /// Outside of a core.
    pub fn new(window: Window) -> Self {
        AtMostOnceServer(Rc::new(Shared {
            window,
            start: random_u64().max(1),
            rules: RefCell::new(Rules::new(window, now())),
            answered: Notify::new(),
        }))
    }

    /// A service whose named calls are executed at most once; others go through.
    pub fn deduplicated<S>(&self, service: S) -> Deduplicated<S> {
        Deduplicated {
            service,
            memory: self.clone(),
        }
    }
}

impl fmt::Debug for AtMostOnceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtMostOnceServer")
            .field("window", &self.0.window)
            .finish_non_exhaustive()
    }
}

/// A service that does not execute a named call twice. Made by [`AtMostOnceServer::deduplicated`].
#[derive(Clone, Debug)]
pub struct Deduplicated<S> {
    service: S,
    memory: AtMostOnceServer,
}

impl<S: NamedService> NamedService for Deduplicated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<Request<RequestBody>> for Deduplicated<S>
where
    S: Service<Request<RequestBody>, Response = Response<R>, Error = Infallible>
        + Service<Request<Body>, Response = Response<B>, Error = Infallible>
        + Clone
        + 'static,
    <S as Service<Request<RequestBody>>>::Future: 'static,
    <S as Service<Request<Body>>>::Future: 'static,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<StdError>,
    B: HttpBody<Data = Bytes> + Unpin + 'static,
    B::Error: Into<StdError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let name = match CallName::read(request.headers()) {
            Ok(Some(name)) => name,
            Ok(None) => {
                let answering = self.service.call(request);
                return Box::pin(async move {
                    let Ok(response) = answering.await;
                    Ok(response.map(Body::new))
                });
            }
            Err(status) => return Box::pin(async move { Ok(status.into_http()) }),
        };
        let (service, shared) = (self.service.clone(), self.memory.0.clone());
        Box::pin(async move {
            let answered = shared.answer(name, service, request).await;
            Ok(answered.unwrap_or_else(|status| status.into_http()))
        })
    }
}

impl Shared {
    async fn answer<S, B>(
        self: Rc<Self>,
        name: CallName,
        service: S,
        request: Request<RequestBody>,
    ) -> Result<Response<Body>, Status>
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible> + 'static,
        S::Future: 'static,
        B: HttpBody<Data = Bytes> + Unpin + 'static,
        B::Error: Into<StdError>,
    {
        if name.server != self.start {
            return Ok(self.refuse());
        }
        // Whole first: a request that breaks off is no call yet.
        let request = WholeRequest::keep(request, self.window.message_bytes_max).await?;
        let mut service = Some((service, request));
        loop {
            // Before the decision, so that no answer comes in between.
            let answered = self.answered.notified();
            let decision =
                self.rules
                    .borrow_mut()
                    .on_call(now(), name.client, name.number, name.settled);
            match decision {
                Decision::Replay(answer) => return Ok(answer.response()),
                Decision::Execute => {
                    let (service, request) = service.take().expect("executed once");
                    drop(spawn(self.clone().execute(name, service, request)));
                }
                Decision::Wait => {}
                Decision::Unkept => return Err(lost("was executed, its answer was not kept")),
                Decision::Forgotten => return Err(lost("may have been executed before")),
                Decision::Full => {
                    let text = "no more calls can be remembered";
                    return Err(Status::resource_exhausted(text));
                }
            }
            answered.await;
        }
    }

    /// Executes a call to its end, whatever becomes of the connection that it came by.
    async fn execute<S, B>(self: Rc<Self>, name: CallName, mut service: S, request: WholeRequest)
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<StdError>,
    {
        let bytes_max = self.window.message_bytes_max;
        let time = deadline::of(request.headers()).ok().flatten();
        let executing = async {
            let Ok(response) = service.call(request.request()).await;
            Ok(WholeAnswer::keep(response, bytes_max).await)
        };
        let answer = deadline::within(time.map(|time| now() + time), executing).await;
        let answer = match answer {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(Broken::TooLarge)) => None,
            Ok(Err(Broken::By(status))) | Err(status) => Some(WholeAnswer::of(status)),
        };
        let bytes = answer.as_ref().map_or(0, WholeAnswer::len);
        let (client, number) = (name.client, name.number);
        let mut rules = self.rules.borrow_mut();
        rules.on_answer(now(), client, number, answer.map(Rc::new), bytes);
        drop(rules);
        self.answered.notify_all();
    }

    /// Tells a client which start of the server this is.
    fn refuse(&self) -> Response<Body> {
        let status = Status::failed_precondition("the call is for another start of the server");
        let mut response = status.into_http();
        let refusal = Refusal {
            server: self.start,
            window: self.window.time,
        };
        refusal.write(response.headers_mut());
        response
    }
}

fn lost(what: &str) -> Status {
    Status::aborted(format!("the call {what}"))
}
