//! The client for applications against real brokers: a Ringmill node, and Apache Kafka where
//! RINGMILL_TEST_KAFKA names one (`cargo xtask peer kafka`), on both of its transports.

mod administering;
mod brokers;
mod consuming;
mod grouping;
mod producing;
mod stuck;
mod transacting;
