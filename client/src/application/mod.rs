//! The client for applications: handles that any thread may hold, on tokio.
//!
//! Each handle owns an I/O thread ([`thread`]) on which the single-threaded shell runs; what goes
//! over to it are jobs and records, what comes back are answers and deliveries.

mod admin;
pub mod blocking;
mod buffer;
mod consumer;
mod consumer_builder;
mod error;
mod feeder;
mod intake;
mod interceptor;
mod poller;
mod producer;
mod rebalance;
mod record;
mod serde;
mod thread;
mod transactions;
mod wait;

pub use admin::{Admin, AdminBuilder};
pub use consumer::Consumer;
pub use consumer_builder::ConsumerBuilder;
pub use error::StartError;
pub use interceptor::{ConsumerInterceptor, ProducerInterceptor};
pub use producer::{Delivery, Producer, ProducerBuilder};
pub use rebalance::{ListenerFuture, RebalanceListener};
pub use record::{ConsumerRecord, ProducerRecord, RecordHeaders};
pub use serde::{
    Deserializer, Integer, Raw, SerdeError, Serializer, TypedConsumer, TypedPollError,
    TypedProducer, TypedRecord, TypedSendError, UnexpectedNull, Utf8,
};
pub use thread::{Closed, ThreadError, Transport};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn is_shared<T: Send + Sync + 'static>() {}
    fn is_sent<T: Send>(_: fn(&'static Consumer, &'static Producer) -> T) {}

    /// Or an application could not spawn what it awaits. The compiler is the test.
    #[test]
    fn handles_are_shared_and_futures_are_sent() {
        is_shared::<Producer>();
        is_shared::<Consumer>();
        is_shared::<Delivery>();
        is_sent(|consumer, _| consumer.recv());
        is_sent(|consumer, _| consumer.poll(Duration::ZERO));
        is_sent(|consumer, _| consumer.stream());
        is_sent(|consumer, _| consumer.commit());
        is_sent(|consumer, _| consumer.subscribe(["t"]));
        is_sent(|_, producer| producer.send(ProducerRecord::to("t")));
        is_sent(|_, producer| producer.flush());
    }
}
