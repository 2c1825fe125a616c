//! Frames on a disk that tears, loses and flips.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::frames::{Damaged, Scan, encode, scan};

fn change() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..90)
}

fn changes() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(change(), 0..6)
}

/// The journal of some changes, and the place where each ends.
fn journal(changes: &[Vec<u8>]) -> (BytesMut, Vec<usize>) {
    let (mut out, mut ends) = (BytesMut::new(), vec![0]);
    for (number, change) in changes.iter().enumerate() {
        encode(number as u64, change, &mut out);
        ends.push(out.len());
    }
    (out, ends)
}

fn payloads(scan: &Scan) -> Vec<Vec<u8>> {
    scan.changes
        .iter()
        .map(|(_, change)| change.to_vec())
        .collect()
}

/// What a journal of `changes` reads as when all is well.
fn read(changes: &[Vec<u8>], ends: &[usize]) -> Scan {
    let changes = ends.iter().zip(changes);
    Scan {
        changes: changes
            .map(|(at, change)| (*at, Bytes::from(change.clone())))
            .collect(),
        end: ends[ends.len() - 1],
        is_worn: false,
    }
}

proptest! {
    #[test]
    fn changes_come_back(changes in changes()) {
        let (bytes, ends) = journal(&changes);
        prop_assert_eq!(scan(&bytes.freeze()), Ok(read(&changes, &ends)));
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_byte_and_no_change_is_halved(changes in changes()) {
        let (bytes, ends) = journal(&changes);
        let bytes = bytes.freeze();
        for cut in 0..=bytes.len() {
            let found = scan(&bytes.slice(..cut)).unwrap();
            // A change counts from the end of its first copy on.
            let copies = ends.windows(2).map(|pair| (pair[0] + pair[1]) / 2);
            let whole = copies.filter(|end| *end <= cut).count();
            prop_assert_eq!(payloads(&found), &changes[..whole]);
            prop_assert!(found.end <= cut);
            let again = scan(&bytes.slice(..found.end)).unwrap();
            prop_assert_eq!(payloads(&again), payloads(&found), "what is kept stands alone");
        }
    }

    #[test]
    fn a_flipped_bit_loses_nothing_wherever_it_is(
        changes in changes(),
        at: prop::sample::Index,
        bit in 0..8_u8,
    ) {
        prop_assume!(!changes.is_empty());
        let (mut bytes, ends) = journal(&changes);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let found = scan(&bytes.clone().freeze()).unwrap();
        prop_assert_eq!(payloads(&found), changes);
        let last_copy = (ends[ends.len() - 2] + bytes.len()) / 2;
        if at < last_copy {
            prop_assert!(found.is_worn && found.end == bytes.len());
        } else {
            prop_assert_eq!(found.end, last_copy, "as if its write had been torn");
        }
    }

    #[test]
    fn a_change_without_a_whole_copy_is_refused_unless_it_is_the_last(
        changes in changes(),
        victim: prop::sample::Index,
        first: prop::sample::Index,
        second: prop::sample::Index,
    ) {
        prop_assume!(!changes.is_empty());
        let (mut bytes, ends) = journal(&changes);
        let victim = victim.index(changes.len());
        let len = (ends[victim + 1] - ends[victim]) / 2;
        let first = ends[victim] + first.index(len);
        bytes[first] ^= 0x55;
        bytes[ends[victim] + len + second.index(len)] ^= 0xaa;
        let found = scan(&bytes.freeze());
        if victim + 1 < changes.len() {
            let refused = matches!(found, Err(Damaged { at, .. }) if at == ends[victim]);
            prop_assert!(refused, "{:?}", found);
        } else {
            prop_assert_eq!(found, Ok(read(&changes[..victim], &ends[..=victim])));
        }
    }

    #[test]
    fn sectors_that_a_crash_lost_of_the_last_write_are_no_damage(
        changes in changes(),
        last in proptest::collection::vec(any::<u8>(), 400..8_000),
        lost in proptest::collection::vec(any::<bool>(), 32),
    ) {
        let (mut bytes, _) = journal(&changes);
        let start = bytes.len();
        encode(changes.len() as u64, &last, &mut bytes);
        for (sector, lost) in lost.into_iter().enumerate() {
            let from = (sector * 512).clamp(start, bytes.len());
            let to = (sector * 512 + 512).clamp(start, bytes.len());
            if lost {
                bytes[from..to].fill(0);
            }
        }
        let found = scan(&bytes.freeze()).unwrap();
        let without = changes.clone();
        let with = [changes, vec![last]].concat();
        let found = payloads(&found);
        prop_assert!(found == without || found == with);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = scan(&Bytes::from(bytes));
    }
}

#[test]
fn zeros_behind_the_last_frame_are_a_torn_tail() {
    let (mut bytes, ends) = journal(&[vec![1; 9]]);
    bytes.put_bytes(0, 4096);
    assert_eq!(scan(&bytes.freeze()).unwrap().end, ends[1]);
}

#[test]
fn a_change_that_is_missing_altogether_is_noticed() {
    let (bytes, ends) = journal(&[vec![1; 9], vec![2; 9], vec![3; 9]]);
    let mut holed = BytesMut::from(&bytes[..ends[1]]);
    holed.extend_from_slice(&bytes[ends[2]..]);
    let damaged = Damaged {
        at: ends[1],
        reason: "a change is missing",
    };
    assert_eq!(scan(&holed.freeze()), Err(damaged));
}

#[test]
fn a_frame_inside_of_a_text_is_not_taken_for_one() {
    let text = "RMJ".repeat(80) + &"RMJ1".repeat(50);
    let (mut bytes, ends) = journal(&[text.into_bytes()]);
    bytes[3] ^= 1;
    bytes.truncate(ends[1] / 2);
    assert_eq!(scan(&bytes.freeze()).unwrap().end, 0);
}
