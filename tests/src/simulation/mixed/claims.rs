//! What one member of a group believes to own, as the history is told of it.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::super::client::RingClient;
use super::commits::Committer;
use super::groups::Group;
use super::scene::Scene;
use crate::checkers::{Claim, Moment};
use crate::plain::PlainError;

/// A member's partitions: where it stands in each, and its claim in the history.
pub(in crate::simulation) struct Owned {
    scene: Scene,
    group: u32,
    member: u32,
    topic: usize,
    session: Duration,
    partitions: BTreeMap<i32, (Option<i64>, usize)>,
}

/// Who is dead owns nothing.
impl Drop for Owned {
    fn drop(&mut self) {
        self.release();
    }
}

impl Owned {
    pub(in crate::simulation) fn new(scene: &Scene, group: &Group, session: Duration) -> Self {
        Self {
            scene: scene.clone(),
            group: group.name.1,
            member: scene.number(),
            topic: group.topic,
            session,
            partitions: BTreeMap::new(),
        }
    }

    pub(in crate::simulation) fn partitions(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    /// It was told to own these, and gives up all others. `heard` is when the request was sent.
    pub(in crate::simulation) fn assign(
        &mut self,
        assigned: &[i32],
        generation: Option<i32>,
        heard: Moment,
    ) {
        let mut book = self.scene.book.borrow_mut();
        let now = book.moment();
        self.partitions.retain(|partition, (_, claim)| {
            let stays = assigned.contains(partition);
            if !stays {
                book.claims[*claim].until = Some(now);
            }
            stays
        });
        for partition in assigned {
            if self.partitions.contains_key(partition) {
                continue;
            }
            book.claims.push(Claim {
                group: self.group,
                member: self.member,
                place: (self.topic, *partition),
                generation,
                from: now,
                until: None,
                heard,
                session: self.session,
            });
            let claim = book.claims.len() - 1;
            self.partitions.insert(*partition, (None, claim));
        }
    }

    /// It gives up everything.
    pub(in crate::simulation) fn release(&mut self) {
        self.assign(&[], None, Moment::default());
    }

    /// A heartbeat that was sent then was answered well.
    pub(in crate::simulation) fn heard(&self, asked: Moment) {
        let mut book = self.scene.book.borrow_mut();
        for (_, claim) in self.partitions.values() {
            book.claims[*claim].heard = asked;
        }
    }

    /// Processes some records of one of the partitions and commits; the answer's error code.
    pub(in crate::simulation) async fn work(
        &mut self,
        client: &mut RingClient,
        committer: &Committer,
        random: &mut SmallRng,
    ) -> Result<i16, PlainError> {
        if self.partitions.is_empty() {
            return Ok(0);
        }
        let nth = random.random_range(0..self.partitions.len());
        let (partition, (position, _)) =
            self.partitions.iter_mut().nth(nth).expect("below its len");
        let place = (self.topic, *partition);
        let from = match *position {
            Some(from) => from,
            None => match committer
                .committed(&self.scene, client, place, false)
                .await?
            {
                Ok(from) => *position.insert(from),
                Err(code) => return Ok(code),
            },
        };
        let end = {
            let mut leader = self.scene.way_to_leader(client, place).await?;
            let name = self.scene.topic(place);
            leader.offset_for(&name, place.1, -1).await?
        };
        let to = from + random.random_range(0..50).min((end - from).max(0));
        let code = committer.commit(&self.scene, client, place, to).await?;
        if code == 0 {
            *position = Some(to);
        }
        Ok(code)
    }
}
