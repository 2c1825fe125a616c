//! Bytes of records and messages: what is written comes back, and nothing else is believed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use openraft::entry::RaftEntry;
use openraft::impls::leader_id_std;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::vote::RaftLeaderId;
use proptest::prelude::*;

use super::messages::{
    Message, decode_appended, decode_installed, decode_transferred, decode_voted, encode_appended,
    encode_voted,
};
use super::stored::{NotStored, Record, Snapshot, Stored, encode, replay};
use super::types::{
    Address, Command, Entry, LogId, Membership, Payload, SnapshotMeta, StoredMembership, Types,
    Vote, index_of, log_id,
};

fn vote() -> impl Strategy<Value = Vote> {
    (any::<u64>(), any::<i32>(), any::<bool>()).prop_map(|(term, node, committed)| Vote {
        leader_id: leader_id_std::LeaderId::new(term, node),
        committed,
    })
}

fn id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| log_id(term, index))
}

fn membership() -> impl Strategy<Value = Membership> {
    let node = ("[a-z.]{0,9}", any::<u16>()).prop_map(|(host, port)| Address { host, port });
    let nodes = proptest::collection::btree_map(any::<i32>(), node, 1..5);
    (nodes, any::<bool>()).prop_map(|(nodes, is_joint)| {
        let all: BTreeSet<i32> = nodes.keys().copied().collect();
        let one = BTreeSet::from([*nodes.keys().next().expect("one at least")]);
        let configs = if is_joint { vec![all, one] } else { vec![one] };
        Membership::new(configs, nodes).expect("every voter is a node")
    })
}

fn command() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        Just(Payload::Blank),
        command().prop_map(|bytes| Payload::Normal(Command(bytes))),
        membership().prop_map(Payload::Membership),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (id(), payload()).prop_map(|(id, payload)| Entry::new(id, payload))
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let option = proptest::option::of;
    (option(id()), option(id()), membership(), command()).prop_map(|(last, at, members, data)| {
        let meta = SnapshotMeta {
            last_log_id: last,
            last_membership: StoredMembership::new(at, members),
        };
        Snapshot { meta, data }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let option = proptest::option::of;
    let entries = proptest::collection::vec(entry(), 0..4);
    let append = (vote(), option(id()), entries, option(id()));
    let append = append.prop_map(|(vote, prev_log_id, entries, leader_commit)| {
        Message::Append(AppendEntriesRequest {
            vote,
            prev_log_id,
            entries,
            leader_commit,
        })
    });
    let request = || {
        (vote(), option(id()), any::<bool>()).prop_map(|(vote, last, transfer)| {
            let mut request = VoteRequest::<Types>::new(vote, last);
            request.leadership_transfer = transfer;
            request
        })
    };
    let transfer = (vote(), any::<i32>(), option(id()));
    let transfer = transfer.prop_map(|(vote, to, last)| {
        Message::TransferLeader(openraft::raft::TransferLeaderRequest::new(vote, to, last))
    });
    prop_oneof![
        append,
        request().prop_map(Message::Vote),
        request().prop_map(Message::PreVote),
        (vote(), snapshot()).prop_map(|(vote, snapshot)| Message::Snapshot(vote, snapshot)),
        transfer,
    ]
}

/// A log's next record, by what the log is.
fn steps() -> impl Strategy<Value = Vec<(u8, u64, Payload)>> {
    proptest::collection::vec((0..6_u8, any::<u64>(), payload()), 0..40)
}

/// A model: entries by index, and what has gone.
#[derive(Default)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    first: u64,
}

impl Model {
    fn next(&self) -> u64 {
        let last = self.entries.keys().next_back();
        last.map_or(self.first, |last| last + 1)
    }

    /// Takes a step that can follow, and gives its record.
    fn step(&mut self, kind: u8, chance: u64, payload: Payload) -> Record {
        let next = self.next();
        match kind {
            0 if next > self.first => {
                let at = self.first + chance % (next - self.first + 1);
                self.entries.split_off(&at);
                Record::Truncate(at)
            }
            1 if next > 0 => {
                let upto = (self.first + chance % (next - self.first + 3)).max(1) - 1;
                if upto >= self.first {
                    self.entries = self.entries.split_off(&(upto + 1));
                    self.first = upto + 1;
                }
                Record::Purge(log_id(7, upto))
            }
            2 => Record::Vote(Vote {
                leader_id: leader_id_std::LeaderId::new(chance, 3),
                committed: false,
            }),
            _ => {
                let entry = Entry::new(log_id(7, next), payload);
                self.entries.insert(next, entry.clone());
                Record::Entry(entry)
            }
        }
    }
}

proptest! {
    #[test]
    fn messages_come_back(message in message()) {
        let bytes = message.encode();
        let again = Message::decode(bytes.clone()).expect("it was just encoded");
        prop_assert_eq!(again.encode(), bytes.clone());
        for cut in 0..bytes.len() {
            prop_assert!(Message::decode(bytes.slice(..cut)).is_none(), "cut at {}", cut);
        }
    }

    #[test]
    fn answers_come_back(vote in vote(), last in proptest::option::of(id()), granted: bool) {
        let voted = VoteResponse::<Types>::new(vote, last, granted);
        prop_assert_eq!(decode_voted(encode_voted(&voted)), Some(voted));
        let answers = [
            AppendEntriesResponse::<Types>::Success,
            AppendEntriesResponse::PartialSuccess(last),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(vote),
        ];
        for answer in answers {
            prop_assert_eq!(decode_appended(encode_appended(&answer)), Some(answer));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let bytes = Bytes::from(bytes);
        let _ = Message::decode(bytes.clone());
        let _ = decode_appended(bytes.clone());
        let _ = decode_voted(bytes.clone());
        let _ = decode_installed(bytes.clone());
        let _ = decode_transferred(bytes.clone());
        let _ = replay(&mut Stored::default(), bytes);
    }

    #[test]
    fn what_is_stored_is_what_its_records_lead_to(steps in steps(), snapshot in snapshot()) {
        let (mut model, mut stored, mut change) = (Model::default(), Stored::default(), BytesMut::new());
        let records = steps.into_iter().map(|(kind, chance, payload)| model.step(kind, chance, payload));
        let records: Vec<Record> = records.chain([Record::Snapshot(snapshot)]).collect();
        for record in records {
            encode(&record, &mut change);
            stored.apply(record).unwrap();
        }
        let entries: Vec<Entry> = model.entries.values().cloned().collect();
        prop_assert_eq!(stored.entries(0..=u64::MAX), entries);
        prop_assert_eq!(stored.next(), model.next());

        let mut again = Stored::default();
        replay(&mut again, change.freeze()).unwrap();
        let mut rewritten = Stored::default();
        for record in stored.records() {
            rewritten.apply(record).unwrap();
        }
        for other in [again, rewritten] {
            prop_assert!(other.records().eq(stored.records()));
            prop_assert_eq!(other.last(), stored.last());
        }
    }
}

#[test]
fn a_log_with_a_gap_is_refused() {
    let mut stored = Stored::default();
    let entry = |index| Record::Entry(Entry::new(log_id(1, index), Payload::Blank));
    stored.apply(entry(0)).unwrap();
    let gap = NotStored::Gap {
        expected: 1,
        found: 2,
    };
    assert_eq!(stored.apply(entry(2)), Err(gap));
    stored.apply(Record::Purge(log_id(1, 0))).unwrap();
    let cut = NotStored::Cut { at: 0, first: 1 };
    assert_eq!(stored.apply(Record::Truncate(0)), Err(cut));
    assert!(stored.entries(0..=9).is_empty());
    assert_eq!(stored.entries(0..=9).first().map(index_of), None);
}

/// Nobody's library has sent entries with gaps, or of terms that are yet to come.
#[test]
fn entries_have_to_follow_from_each_other() {
    let message = |prev: Option<LogId>, ids: &[(u64, u64)]| {
        let entries = ids
            .iter()
            .map(|(term, index)| Entry::new(log_id(*term, *index), Payload::Blank));
        Message::Append(AppendEntriesRequest {
            vote: Vote {
                leader_id: leader_id_std::LeaderId::new(5, 2),
                committed: true,
            },
            prev_log_id: prev,
            entries: entries.collect(),
            leader_commit: None,
        })
    };
    let good = [
        message(None, &[]),
        message(None, &[(1, 0), (1, 1), (5, 2)]),
        message(Some(log_id(3, 7)), &[(3, 8), (4, 9)]),
    ];
    for good in good {
        assert!(good.is_in_order(), "{good:?}");
        assert_eq!(good.term(), 5);
    }
    let bad = [
        message(None, &[(1, 1)]),
        message(Some(log_id(3, 7)), &[(3, 9)]),
        message(Some(log_id(3, 7)), &[(3, 8), (3, 8)]),
        message(Some(log_id(3, 7)), &[(2, 8)]),
        message(Some(log_id(3, 7)), &[(6, 8)]),
        message(Some(log_id(3, u64::MAX)), &[(3, 0)]),
    ];
    for bad in bad {
        assert!(!bad.is_in_order(), "{bad:?}");
    }
}
