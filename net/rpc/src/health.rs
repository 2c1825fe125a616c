//! The health service: which services serve, asked once or watched.
//!
//! Source: gRPC "Health Checking Protocol", grpc.health.v1. Messages and traits are `tonic-health`'s;
//! its server is not, because it ends a watch of an unknown service where the protocol wants it told
//! `SERVICE_UNKNOWN` and kept.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;
use ringmill_ring::Notify;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_server::{Health as HealthTrait, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

pub use tonic_health::pb::health_check_response::ServingStatus;

use crate::local::{Local, OnCore, local_stream};

/// What each service of a core says of itself. The empty name is the server as a whole. Clones
/// share it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Local<Rc<Statuses>>>);

#[derive(Debug, Default)]
struct Statuses {
    by_name: RefCell<BTreeMap<String, ServingStatus>>,
    changed: Notify,
}

impl Statuses {
    fn of(&self, name: &str) -> Option<ServingStatus> {
        self.by_name.borrow().get(name).copied()
    }
}

impl Health {
    /// The server serves; nothing is known of any service.
    ///
    /// ```
    /// use ringmill_rpc::{Health, Router, ServingStatus};
    ///
    /// let health = Health::new();
    /// health.set("shop.Orders", ServingStatus::Serving);
    /// let router = Router::new().service(health.server());
    /// assert_eq!(router.names().collect::<Vec<_>>(), ["grpc.health.v1.Health"]);
    /// ```
    pub fn new() -> Self {
        let health = Health(Arc::new(Local::new(Rc::default())));
        health.set("", ServingStatus::Serving);
        health
    }

    /// The service for [`Router::service`](crate::Router::service).
    pub fn server(&self) -> HealthServer<Health> {
        HealthServer::new(self.clone())
    }

    /// What a service says of itself from now on.
    ///
    /// # Panics
    /// On another core than that of [`Health::new`], as all of this.
    pub fn set(&self, service: &str, status: ServingStatus) {
        self.change(|by_name| {
            by_name.insert(service.to_owned(), status);
        });
    }

    /// As [`Health::set`], by a generated service's own name.
    pub fn set_service<S: NamedService>(&self, status: ServingStatus) {
        self.set(S::NAME, status);
    }

    /// Nothing is known of a service any more.
    pub fn clear(&self, service: &str) {
        self.change(|by_name| {
            by_name.remove(service);
        });
    }

    /// All that is known of does not serve: to be said before a server drains, so that balancers
    /// go elsewhere.
    pub fn shut_down(&self) {
        self.change(|by_name| {
            for status in by_name.values_mut() {
                *status = ServingStatus::NotServing;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, ServingStatus>)) {
        self.0.with(|statuses| {
            change(&mut statuses.by_name.borrow_mut());
            statuses.changed.notify_all();
        });
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

type Watched = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>>>>;

/// What is said of a service now, and again whenever it changes.
fn watch(statuses: Rc<Statuses>, name: String) -> Watched {
    let told: Option<ServingStatus> = None;
    Box::pin(unfold(
        (statuses, name, told),
        |(statuses, name, told)| async move {
            loop {
                let now = statuses.of(&name).unwrap_or(ServingStatus::ServiceUnknown);
                if told != Some(now) {
                    let status = now.into();
                    let next = (statuses, name, Some(now));
                    return Some((Ok(HealthCheckResponse { status }), next));
                }
                statuses.changed.notified().await;
            }
        },
    ))
}

#[tonic::async_trait]
impl HealthTrait for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let status = self.0.with(|statuses| statuses.of(&name));
        let unknown = || Status::not_found(format!("nothing is known of {name:?}"));
        let status = status.ok_or_else(unknown)?.into();
        Ok(Response::new(HealthCheckResponse { status }))
    }

    type WatchStream = OnCore<Watched>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<OnCore<Watched>>, Status> {
        let name = request.into_inner().service;
        let watched = self.0.with(|statuses| watch(statuses.clone(), name));
        Ok(Response::new(local_stream(watched)))
    }
}
