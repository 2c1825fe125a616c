//! The client for applications: handles that any thread may hold, on tokio.
//!
//! Each handle owns an I/O thread ([`thread`]) on which the single-threaded shell runs; what goes
//! over to it are jobs and records, what comes back are answers and deliveries.

mod error;
mod feeder;
mod intake;
mod interceptor;
mod producer;
mod record;
mod thread;
mod wait;

pub use error::StartError;
pub use interceptor::{ConsumerInterceptor, ProducerInterceptor};
pub use producer::{Delivery, Producer, ProducerBuilder};
pub use record::{ConsumerRecord, ProducerRecord, RecordHeaders};
pub use thread::{Closed, ThreadError, Transport};
