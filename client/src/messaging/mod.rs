//! Communication as two choices: how long a message lives, and what its sender waits for.
//!
//! | | transient: gone if the receiver is not there | persistent: stored until it is delivered |
//! |---|---|---|
//! | asynchronous | a one-way call | a record handed to the producer |
//! | sent | a call handed to a connection | a record that the broker has stored |
//! | received | a call that is answered by the inbox | a record that the group has committed |
//! | answered | a call that is answered by the application | a record, and another with its answer |
//!
//! A sender is of one persistence; each message says until when it waits. What an error says is
//! always the same: the point was not seen to be reached. A message that was given up may still get
//! there; one that was certainly not taken is told apart ([`SendError::NotTaken`]).
//!
//! Everything belongs to one core of the ring, and runs in simulated worlds. Topics are of a client
//! of this crate, calls are `ringmill_rpc`'s.

mod calls;
mod topics;

use std::time::Duration;

use bytes::Bytes;
use ringmill_ring::{now, timeout};
use thiserror::Error;
use tonic::Status;

use crate::cluster::Client;
use calls::Line;
use topics::Outbox;

pub use calls::{Letter, Mailbox, MailboxService, mailbox};
pub use ringmill_rpc::{Channel, ChannelOptions};
pub use topics::{Inbox, InboxError, Route, Stored};

/// How long a message lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Persistence {
    /// As long as both sides are there.
    Transient,
    /// Until it is delivered, whoever fails meanwhile.
    Persistent,
}

/// The point that a sender waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SyncPoint {
    /// None: the sender goes on at once, and is promised nothing.
    Asynchronous,
    /// The messaging system has it: the broker has stored it, or, if it is transient, there is a
    /// connection and the message was handed to it.
    Sent,
    /// The receiver's side has it: its group has committed it, or its inbox has taken it.
    Received,
    /// The receiver has answered.
    Answered,
}

/// What was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// Nothing is promised.
    Nothing,
    /// See [`SyncPoint::Sent`].
    Sent,
    /// See [`SyncPoint::Received`].
    Received,
    /// The answer.
    Answered(Bytes),
}

/// The point was not seen to be reached.
#[derive(Debug, Error)]
pub enum SendError {
    /// The message was not taken, and will never arrive.
    #[error("the message was not taken: {0}")]
    NotTaken(String),
    /// The time is over. The message may have got to the point unseen, or may yet.
    #[error("not {point:?} within {limit:?}; what became of the message is not known")]
    TooLate {
        /// Which.
        point: SyncPoint,
        /// The sender's.
        limit: Duration,
    },
    /// The messaging system, or the receiver, failed. The message may have got to the point unseen.
    #[error("not {point:?}: {cause}")]
    Failed {
        /// Which.
        point: SyncPoint,
        /// In words.
        cause: String,
    },
}

impl SendError {
    fn failed(point: SyncPoint, cause: impl std::fmt::Display) -> Self {
        SendError::Failed {
            point,
            cause: cause.to_string(),
        }
    }
}

/// Sends messages of one persistence to one receiver.
pub struct Sender {
    carrier: Carrier,
    limit: Duration,
}

enum Carrier {
    Line(Line),
    Outbox(Outbox),
}

impl Sender {
    /// Messages that live as long as both sides do, by calls on a channel to a [`MailboxService`].
    /// Each send ends within `limit`.
    pub fn transient(channel: Channel, limit: Duration) -> Self {
        Sender {
            carrier: Carrier::Line(Line::new(channel)),
            limit,
        }
    }

    /// Messages that are stored, in a topic. Each send ends within `limit`; the record of one that
    /// is given up may still be stored.
    ///
    /// # Errors
    /// If the topics are not to be had.
    pub async fn persistent(
        client: &Client,
        route: Route,
        limit: Duration,
    ) -> Result<Self, SendError> {
        let opening = Outbox::open(client, route);
        let outbox = within(limit, SyncPoint::Sent, opening).await?;
        Ok(Sender {
            carrier: Carrier::Outbox(outbox),
            limit,
        })
    }

    /// How long its messages live.
    pub fn persistence(&self) -> Persistence {
        match self.carrier {
            Carrier::Line(_) => Persistence::Transient,
            Carrier::Outbox(_) => Persistence::Persistent,
        }
    }

    /// Sends a message and waits for a point.
    ///
    /// # Errors
    /// The point was not seen to be reached, within the sender's limit.
    pub async fn send(&self, message: Bytes, until: SyncPoint) -> Result<Reached, SendError> {
        match &self.carrier {
            Carrier::Line(line) => {
                let deadline = now() + self.limit;
                within(self.limit, until, line.send(message, until, deadline)).await
            }
            Carrier::Outbox(outbox) => {
                within(self.limit, until, outbox.send(&message, until)).await
            }
        }
    }
}

async fn within<T>(
    limit: Duration,
    point: SyncPoint,
    sending: impl Future<Output = Result<T, SendError>>,
) -> Result<T, SendError> {
    match timeout(limit, sending).await {
        Ok(done) => done,
        Err(_) => Err(SendError::TooLate { point, limit }),
    }
}

/// A call's failure, as its sender is told.
fn of_call(point: SyncPoint, status: &Status) -> SendError {
    SendError::failed(
        point,
        format_args!("{:?}: {}", status.code(), status.message()),
    )
}
