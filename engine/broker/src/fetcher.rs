//! Following: this core's copies of what other nodes lead, kept up by one fetch at a time to each
//! leader. What to do with an answer is [`ringmill_replication::partition::follower`]'s to say.
//!
//! A fetch tells the leader up to where the copy is safe, which is what acknowledgements wait for:
//! so the next one goes out when what the last one brought is flushed, with all that was written
//! meanwhile to come. A copy that is far behind does not wait, and is flushed beside; it has fetches of
//! its own, on another connection, so that what is live does not wait behind it. And so have those
//! in which nothing was written for a while ([`Pace`]): a fetch goes through all that it names, and
//! what is busy is not to name thousands of partitions with each.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, join, join_all, select};
use ringmill_log::AppendError;
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::follower::{Answer, Ends, Fetch, Follower, Step};
use ringmill_ring::{Notify, planted, sleep, spawn};
use ringmill_wire::StrBytes;
use ringmill_wire::api::ApiKey;
use ringmill_wire::batch::Batches;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::{
    FINAL_SESSION_EPOCH, FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition,
    IsolationLevel, NO_SESSION_ID,
};
use ringmill_wire::header::RequestHeader;
use ringmill_wire::topic::TopicRef;

use crate::partition::Hosted;
use crate::peers::{Destination, Lane};
use crate::replica::Cut;
use crate::router::PartitionId;
use crate::shard::Shard;

/// How long a leader may keep a fetch that it has nothing for. What it has begun to lead meanwhile is
/// asked for beside.
const WAIT: Duration = Duration::from_millis(100);
/// The same for partitions in which there was nothing for a while.
const QUIET_WAIT: Duration = Duration::from_millis(500);
/// A copy that got nothing for so long is quiet.
const QUIET_AFTER_MS: u64 = 10_000;
/// How long an answer may take beyond that.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// After an answer that makes no sense, or none.
const PAUSE: Duration = Duration::from_millis(50);
/// After the first answer that makes no sense yet: the leader may be about to learn that it is one.
/// Doubled with each further one, up to [`PAUSE`].
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Bytes of one answer.
const ANSWER_BYTES: i32 = 8 << 20;
/// Of one partition.
const PARTITION_BYTES: i32 = 1 << 20;
/// A partition whose answer has so many is far behind.
const FAR_BEHIND_BYTES: usize = PARTITION_BYTES as usize / 2;

/// Whom this core follows.
#[derive(Default)]
pub(crate) struct Fetchers {
    leaders: RefCell<BTreeMap<NodeId, Rc<Leading>>>,
}

/// What another node leads of this core's copies.
#[derive(Default)]
struct Leading {
    followed: RefCell<BTreeMap<PartitionId, Followed>>,
    /// Rings when there is something again.
    bell: Notify,
}

/// With whom a copy is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Pace {
    /// With those that get records.
    #[default]
    Live,
    /// With those that got none for a while.
    Quiet,
    /// With those that are far behind.
    Far,
}

impl Pace {
    const ALL: [Self; 3] = [Self::Live, Self::Quiet, Self::Far];

    fn lane(self) -> Lane {
        match self {
            Self::Live => Lane::Replication,
            Self::Quiet => Lane::Quiet,
            Self::Far => Lane::CatchUp,
        }
    }

    /// How long a leader may keep its fetches.
    fn wait(self) -> Duration {
        match self {
            Self::Live | Self::Far => WAIT,
            Self::Quiet => QUIET_WAIT,
        }
    }
}

#[derive(Clone)]
struct Followed {
    hosted: Rc<Hosted>,
    follower: Follower,
    progress: Rc<Progress>,
}

/// How far a copy is.
#[derive(Default)]
struct Progress {
    /// Milliseconds of the core's clock: it is not asked for before.
    not_before: Cell<u64>,
    /// The fetches that it belongs to.
    pace: Cell<Pace>,
    /// Milliseconds of the core's clock: when it got records last, or was followed first.
    got_ms: Cell<u64>,
    /// It had everything that is safe at its last answer.
    has_all: Cell<bool>,
    /// It is being asked for.
    is_asked: Cell<bool>,
    /// Answers that made no sense, one after the other.
    failures: Cell<u32>,
}

impl Progress {
    /// Of a copy that is followed from now on.
    fn begun(now_ms: u64) -> Rc<Self> {
        let progress = Self::default();
        progress.got_ms.set(now_ms);
        Rc::new(progress)
    }

    /// An answer brought so many bytes of records.
    fn on_answer(&self, now_ms: u64, len: usize, has_all: bool) {
        self.failures.set(0);
        self.has_all.set(has_all);
        if len > 0 {
            self.got_ms.set(now_ms);
        }
        let is_quiet = now_ms.saturating_sub(self.got_ms.get()) >= QUIET_AFTER_MS;
        self.pace.set(match len {
            FAR_BEHIND_BYTES.. => Pace::Far,
            _ if is_quiet => Pace::Quiet,
            _ => Pace::Live,
        });
    }

    /// An answer made no sense, at least not yet.
    fn on_failure(&self, now_ms: u64) {
        let pause = (PAUSE_MIN * (1 << self.failures.get().min(10))).min(PAUSE);
        self.failures.set(self.failures.get().saturating_add(1));
        self.not_before.set(now_ms + pause.as_millis() as u64);
    }
}

/// Copies that are being asked for, until this is dropped.
struct Asked(Vec<Rc<Progress>>);

impl Asked {
    fn of(due: &[Followed]) -> Self {
        let asked = progress_of(due);
        asked
            .iter()
            .for_each(|progress| progress.is_asked.set(true));
        Self(asked)
    }
}

fn progress_of(followed: &[Followed]) -> Vec<Rc<Progress>> {
    followed.iter().map(|f| Rc::clone(&f.progress)).collect()
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0
            .iter()
            .for_each(|progress| progress.is_asked.set(false));
    }
}

impl Leading {
    /// Of the copies of a pace: those that can be asked for now, and when to look again if there are
    /// any that cannot yet.
    fn due(&self, shard: &Shard, pace: Pace) -> (Vec<Followed>, Option<Duration>) {
        let now_ms = shard.now().mono_ms;
        let followed = self.followed.borrow();
        let ours = followed
            .values()
            .filter(|f| f.progress.pace.get() == pace && !f.progress.is_asked.get());
        let (due, later): (Vec<&Followed>, Vec<&Followed>) = ours.partition(|followed| {
            let progress = &followed.progress;
            let is_free = progress.has_all.get() || !shard.must_wait_to_fetch(followed.hosted.id);
            let is_free = is_free && !followed.hosted.is_held(shard);
            progress.not_before.get() <= now_ms && is_free
        });
        let pauses = later.iter().map(|followed| {
            let wait = followed.progress.not_before.get().saturating_sub(now_ms);
            match wait {
                0 => PAUSE,
                wait => Duration::from_millis(wait),
            }
        });
        let pause = pauses.min();
        (due.into_iter().cloned().collect(), pause)
    }

    /// What is known of a copy that follows the same leader still.
    fn progress(&self, hosted: &Rc<Hosted>, follower: Follower) -> Option<Rc<Progress>> {
        let followed = self.followed.borrow();
        let known = followed.get(&hosted.id)?;
        let is_same = Rc::ptr_eq(&known.hosted, hosted) && known.follower == follower;
        is_same.then(|| Rc::clone(&known.progress))
    }
}

impl Shard {
    /// Goes by what the metadata says of leaders now.
    pub(crate) fn follow(self: &Rc<Self>) {
        let mut now: BTreeMap<NodeId, BTreeMap<PartitionId, Followed>> = BTreeMap::new();
        let mut leaders = self.fetchers.leaders.borrow_mut();
        let now_ms = self.now().mono_ms;
        for hosted in self.all_hosted() {
            if let Some(follower) = hosted.replica.follower() {
                let of_leader = now.entry(follower.leader()).or_default();
                let known = leaders.get(&follower.leader());
                let known = known.and_then(|leading| leading.progress(&hosted, follower));
                if known.is_none() && planted("cut-at-high-watermark") {
                    let (shard, hosted) = (Rc::clone(self), Rc::clone(&hosted));
                    spawn(async move {
                        let safe = hosted.log.high_watermark().unwrap_or(0);
                        let _ = shard.cut(&hosted, Cut::End(safe)).await;
                    });
                }
                let followed = Followed {
                    follower,
                    progress: known.unwrap_or_else(|| Progress::begun(now_ms)),
                    hosted: Rc::clone(&hosted),
                };
                of_leader.insert(hosted.id, followed);
            }
        }
        for (node, leading) in leaders.iter() {
            let followed = now.remove(node).unwrap_or_default();
            leading.followed.replace(followed);
            leading.bell.notify_all();
        }
        for (node, followed) in now {
            let leading = Rc::new(Leading {
                followed: RefCell::new(followed),
                bell: Notify::new(),
            });
            leaders.insert(node, Rc::clone(&leading));
            for pace in Pace::ALL {
                spawn(Rc::clone(self).fetch_from(node, Rc::clone(&leading), pace));
            }
        }
    }

    /// Keeps the copies of what a node leads up, those of a pace, for ever.
    async fn fetch_from(self: Rc<Self>, leader: NodeId, leading: Rc<Leading>, pace: Pace) {
        loop {
            let bell = leading.bell.notified();
            let (due, later) = leading.due(&self, pace);
            if self.is_stopping() {
                return;
            }
            if due.is_empty() {
                match later {
                    None => bell.await,
                    Some(pause) => {
                        select(pin!(bell), pin!(sleep(pause))).await;
                    }
                }
                continue;
            }
            let done = self.fetch_due(leader, &leading, pace, due).await;
            if done.is_none() {
                sleep(PAUSE).await;
            }
        }
    }

    /// Fetches what is due. What becomes due meanwhile, because the leader has just begun to lead it,
    /// does not wait for the answer: asking for it beside ends the wait.
    async fn fetch_due(
        self: &Rc<Self>,
        leader: NodeId,
        leading: &Leading,
        pace: Pace,
        due: Vec<Followed>,
    ) -> Option<()> {
        let lane = pace.lane();
        let mut asked = progress_of(&due);
        let mut first = pin!(self.fetch_once((leader, lane), due, pace.wait()));
        let done = loop {
            let bell = leading.bell.notified();
            let (late, _) = leading.due(self, pace);
            if !late.is_empty() {
                asked.extend(progress_of(&late));
                let beside = self.fetch_once((leader, lane), late, Duration::ZERO);
                let (first, beside) = join(first, beside).await;
                break first.and(beside);
            }
            if let Either::Left((done, _)) = select(first.as_mut(), pin!(bell)).await {
                break done;
            }
        };
        // The other lane's from now on.
        if asked.iter().any(|progress| progress.pace.get() != pace) {
            leading.bell.notify_all();
        }
        done
    }

    /// One fetch, and what follows from the answer; none if there is no answer. Its copies count as
    /// asked for at once, before this is polled: whoever looks what else is due is not to find them.
    fn fetch_once(
        self: &Rc<Self>,
        to: (NodeId, Lane),
        due: Vec<Followed>,
        wait: Duration,
    ) -> impl Future<Output = Option<()>> + use<> {
        let (shard, asked) = (Rc::clone(self), Asked::of(&due));
        async move {
            let _asked = asked;
            shard.ask_leader(to, due, wait).await
        }
    }

    async fn ask_leader(
        self: &Rc<Self>,
        (leader, lane): (NodeId, Lane),
        due: Vec<Followed>,
        wait: Duration,
    ) -> Option<()> {
        let asked: Vec<(Followed, Fetch)> = due
            .into_iter()
            // What was due a moment ago may be about to be thrown away now.
            .filter(|f| !f.hosted.is_held(self) && !f.hosted.replica.is_being_cut())
            .map(|followed| {
                let fetch = followed.follower.fetch(ends_of(&followed.hosted));
                followed.hosted.replica.repair.on_fetch(fetch.leader_epoch);
                (followed, fetch)
            })
            .collect();
        if asked.is_empty() {
            return None;
        }
        let request = self.request(&asked, wait)?;
        let to = Destination {
            lane,
            node: leader,
            address: self.image().nodes().get(&leader)?.address.clone(),
        };
        let version = ApiKey::Fetch.api().max;
        let encode = |correlation_id| {
            let header = RequestHeader {
                key: ApiKey::Fetch,
                version,
                correlation_id,
                client_id: Some(StrBytes::from_static_str("ringmill")),
            };
            let frame = request.encode(&header);
            frame
                .map(|frame| vec![frame])
                .map_err(|_| std::io::ErrorKind::InvalidInput.into())
        };
        let answered = self.peers.call_raw(&to, wait + ANSWER_TIME, encode).await;
        let frame = answered.ok()?;
        let response = FetchResponse::<Bytes>::decode(version, &frame).ok()?;
        if response.error_code != ErrorCode::None.code() {
            return None;
        }
        let mut parts: BTreeMap<PartitionId, FetchedPartition<Bytes>> = BTreeMap::new();
        for topic in response.topics {
            if let TopicRef::Id(id) = topic.topic {
                for part in topic.partitions {
                    let index = part.partition;
                    parts.insert(PartitionId { topic: id, index }, part);
                }
            }
        }
        let works = asked.into_iter().filter_map(|(followed, fetch)| {
            let part = parts.remove(&followed.hosted.id)?;
            Some(self.take(followed, fetch, part))
        });
        join_all(works).await;
        Some(())
    }

    fn request(&self, asked: &[(Followed, Fetch)], wait: Duration) -> Option<FetchRequest> {
        let (replica_id, replica_epoch) = self.life_in_cluster()?;
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (followed, fetch) in asked {
            let hosted = &followed.hosted;
            let part = FetchPartition {
                partition: hosted.id.index,
                current_leader_epoch: fetch.leader_epoch,
                fetch_offset: fetch.offset,
                last_fetched_epoch: fetch.last_epoch,
                log_start_offset: hosted.log.log_start_offset(),
                max_bytes: PARTITION_BYTES,
                safe_end: fetch.durable_end,
            };
            let topic = TopicRef::Id(hosted.id.topic);
            match topics.last_mut() {
                Some(last) if last.topic == topic => last.partitions.push(part),
                _ => topics.push(FetchTopic {
                    topic,
                    partitions: vec![part],
                }),
            }
        }
        Some(FetchRequest {
            replica_id,
            replica_epoch,
            max_wait_ms: wait.as_millis() as i32,
            min_bytes: 1,
            max_bytes: ANSWER_BYTES,
            isolation_level: IsolationLevel::ReadUncommitted,
            session_id: NO_SESSION_ID,
            session_epoch: FINAL_SESSION_EPOCH,
            topics,
            forgotten: Vec::new(),
            rack_id: StrBytes::new(),
        })
    }

    /// Cuts the log of a copy.
    pub(crate) async fn cut(self: &Rc<Self>, hosted: &Rc<Hosted>, cut: Cut) -> Result<(), String> {
        let done = hosted.cut(self, cut).await;
        // What the metadata has said meanwhile counts from now on.
        self.follow();
        if let Some(leadership) = done? {
            self.on_leadership(hosted, leadership);
        }
        Ok(())
    }

    /// Does to a copy what its leader's answer asks for.
    async fn take(
        self: &Rc<Self>,
        followed: Followed,
        fetch: Fetch,
        part: FetchedPartition<Bytes>,
    ) {
        let Followed {
            hosted,
            follower,
            progress,
        } = followed;
        self.has_fetched(hosted.id, part.records.len());
        let wait = || progress.on_failure(self.now().mono_ms);
        // The metadata has gone on meanwhile: somebody else leads, if not this node.
        if hosted.replica.follower() != Some(follower) {
            return;
        }
        let Some(answer) = answer_of(&fetch, &part) else {
            return wait();
        };
        let log = &hosted.log;
        let own = ends_of(&hosted);
        let step = follower.on_answer(fetch, own, answer, |epoch| log.end_of_epoch(epoch));
        let is_done = match step {
            Step::Append if part.records.is_empty() => Ok(()),
            Step::Append => append(&hosted, follower, &part.records).await,
            Step::Truncate(offset) => self.cut(&hosted, Cut::End(offset)).await,
            Step::Reset(offset) => self.cut(&hosted, Cut::Anew(offset)).await,
            Step::Pause => return wait(),
        };
        if let Err(reason) = is_done {
            let folder = log.dir().display();
            tracing::warn!(%folder, ?step, reason, "a copy cannot follow its leader");
            return wait();
        }
        let has_all = part.high_watermark <= log.log_end_offset();
        progress.on_answer(self.now().mono_ms, part.records.len(), has_all);
        if step == Step::Append && hosted.replica.follower() == Some(follower) {
            hosted.on_leaders_high_watermark(part.high_watermark);
            if part.log_start_offset > log.log_start_offset() {
                // Retention will try again.
                let _ = log.set_log_start_offset(part.log_start_offset).await;
            }
        }
        if progress.pace.get() != Pace::Far && !planted("follower-acks-before-flush") {
            let changed = hosted.replica.changed.notified();
            // A full disk takes back what was appended, and it is asked for again.
            select(pin!(log.all_safe()), pin!(changed)).await;
        }
    }
}

/// A copy's own ends.
fn ends_of(hosted: &Hosted) -> Ends {
    let log = &hosted.log;
    let end = log.log_end_offset();
    Ends {
        end,
        durable_end: match planted("follower-acks-before-flush") {
            true => end,
            false => log.safe_end(),
        },
        last_epoch: match end > log.log_start_offset() {
            true => log.epoch_of(end - 1).unwrap_or(-1),
            false => -1,
        },
    }
}

/// What a leader says; none if it is no answer to the question.
fn answer_of(fetch: &Fetch, part: &FetchedPartition<Bytes>) -> Option<Answer> {
    match ErrorCode::from_code(part.error_code)? {
        ErrorCode::None => {}
        ErrorCode::OffsetOutOfRange if part.log_start_offset >= 0 => {
            return Some(Answer::OutOfRange {
                start: part.log_start_offset,
                end: part.high_watermark,
            });
        }
        _ => return None,
    }
    if let Some(parted) = part.diverging_epoch {
        return Some(Answer::Diverging {
            epoch: parted.epoch,
            end_offset: parted.end_offset,
        });
    }
    let mut next_offset = fetch.offset;
    for batch in Batches::new(&part.records) {
        next_offset = batch.ok()?.1.header().next_offset();
    }
    Some(Answer::Records { next_offset })
}

/// Appends a leader's records, as long as it leads.
async fn append(hosted: &Hosted, follower: Follower, records: &Bytes) -> Result<(), String> {
    loop {
        if hosted.replica.follower() != Some(follower) {
            return Ok(());
        }
        match hosted.log.append_replica(records.clone()) {
            Ok(_) => return Ok(()),
            Err(AppendError::Full) => hosted.log.room().await,
            Err(error) => return Err(error.to_string()),
        }
    }
}
