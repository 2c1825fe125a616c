//! What goes wrong in a simulated world, how often, and how long things take.
//!
//! Plain structs of knobs with public fields: a test turns what it wants to see. The defaults
//! are a healthy machine and a healthy network with honest latencies. The constructors named
//! `swarm` turn a random subset of the knobs, so that many seeds together see
//! combinations that no one would have thought of (Groce et al., "Swarm Testing", 2012).

use std::time::Duration;

use super::random::Random;

/// How often something goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chance {
    /// Not at all.
    #[default]
    Never,
    /// In so many of a million cases.
    PerMillion(u32),
    /// Once, in the n-th case from now (1 is the next).
    Nth(u64),
    /// In every case.
    Always,
}

impl Chance {
    /// In one of `cases` cases, on average.
    pub fn one_in(cases: u32) -> Self {
        Chance::PerMillion(1_000_000 / cases.max(1))
    }

    /// Whether it goes wrong this time.
    pub(super) fn strikes(&mut self, random: &mut Random) -> bool {
        match self {
            Chance::Never => false,
            Chance::PerMillion(part) => random.per_million(*part),
            Chance::Nth(left) => {
                *left = left.saturating_sub(1);
                let strikes = *left == 0;
                if strikes {
                    *self = Chance::Never;
                }
                strikes
            }
            Chance::Always => true,
        }
    }
}

/// How long something takes: evenly spread between two bounds, and now and then ten times the
/// upper one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    min_ns: u64,
    max_ns: u64,
    /// How often it takes ten times as long as the upper bound.
    pub slow: Chance,
}

impl Latency {
    /// Evenly spread between two bounds.
    pub fn between(min: Duration, max: Duration) -> Self {
        let (min_ns, max_ns) = (min.as_nanos() as u64, max.as_nanos() as u64);
        assert!(min_ns <= max_ns, "an empty range {min:?}..={max:?}");
        Latency {
            min_ns,
            max_ns,
            slow: Chance::Never,
        }
    }

    /// Evenly spread between two bounds, in microseconds, with a slow one in a hundred.
    pub fn micros(min: u64, max: u64) -> Self {
        let bounds = (Duration::from_micros(min), Duration::from_micros(max));
        Latency {
            slow: Chance::one_in(100),
            ..Latency::between(bounds.0, bounds.1)
        }
    }

    /// How long it takes this time, in nanoseconds.
    pub(super) fn draw(&mut self, random: &mut Random) -> u64 {
        let ns = random.between(self.min_ns, self.max_ns);
        if self.slow.strikes(random) {
            ns + 10 * self.max_ns
        } else {
            ns
        }
    }
}

/// One node's disk.
#[derive(Clone, Debug)]
pub struct DiskFaults {
    /// How long a read takes.
    pub read_latency: Latency,
    /// How long a write into the page cache takes.
    pub write_latency: Latency,
    /// How long a flush takes.
    pub sync_latency: Latency,
    /// How long opening, renaming, listing and the like take.
    pub name_latency: Latency,
    /// A read fails with `EIO`.
    pub read_error: Chance,
    /// A write fails with `EIO`; any part of it may have been done.
    pub write_error: Chance,
    /// A flush fails with `EIO`; what it should have made durable is marked clean all the same,
    /// so that the next flush succeeds without it (Rebello et al., "Can Applications Recover
    /// from fsync Failures?", 2020).
    pub sync_error: Chance,
    /// After a failed flush the pages leave the cache at once: reads see the old content.
    pub evict_after_failed_sync: Chance,
    /// Opening, renaming, listing and the like fail with `EIO`.
    pub name_error: Chance,
    /// Renaming or unlinking fails with `ENOSPC`: the folder would have to grow, or the file system
    /// to copy a part of it.
    pub name_no_space: Chance,
    /// A read ends early, with at least one byte.
    pub short_read: Chance,
    /// A write ends early, with at least one byte.
    pub short_write: Chance,
    /// One bit of what a read brings is wrong; the next read may be right.
    pub read_flip: Chance,
    /// One bit of what is written back is wrong on the medium. It shows when the page has left
    /// the cache: after a power cut, or [`DiskHandle::drop_caches`](super::DiskHandle::drop_caches).
    pub write_flip: Chance,
    /// A write is reported as durable and never reaches the medium.
    pub lost_write: Chance,
    /// A write reaches the medium some sectors away from its place.
    pub misdirected_write: Chance,
    /// A sector that was being written when the power went holds garbage.
    pub torn_sector: Chance,
    /// Bytes that the disk holds; past it, `ENOSPC`.
    pub capacity: u64,
}

impl Default for DiskFaults {
    fn default() -> Self {
        DiskFaults {
            read_latency: Latency::micros(5, 100),
            write_latency: Latency::micros(2, 20),
            sync_latency: Latency::micros(80, 700),
            name_latency: Latency::micros(5, 50),
            read_error: Chance::Never,
            write_error: Chance::Never,
            sync_error: Chance::Never,
            evict_after_failed_sync: Chance::PerMillion(500_000),
            name_error: Chance::Never,
            name_no_space: Chance::Never,
            short_read: Chance::Never,
            short_write: Chance::Never,
            read_flip: Chance::Never,
            write_flip: Chance::Never,
            lost_write: Chance::Never,
            misdirected_write: Chance::Never,
            torn_sector: Chance::one_in(20),
            capacity: 1 << 50,
        }
    }
}

/// Half of the time nothing, else one of `choices`.
fn maybe(random: &mut Random, choices: &[u32]) -> Chance {
    if random.coin() {
        Chance::Never
    } else {
        Chance::one_in(random.pick(choices))
    }
}

impl DiskFaults {
    /// A random machine whose disk is slow here and there and ends calls early, yet loses
    /// nothing that it promised: whatever runs on it must go on without an error.
    pub fn swarm(random: &mut Random) -> Self {
        let slow = random.pick(&[1, 1, 4, 20]);
        DiskFaults {
            read_latency: Latency::micros(1, 100 * slow),
            write_latency: Latency::micros(1, 20 * slow),
            sync_latency: Latency::micros(1, 700 * slow),
            name_latency: Latency::micros(1, 50 * slow),
            short_read: maybe(random, &[2, 20]),
            short_write: maybe(random, &[2, 20]),
            torn_sector: maybe(random, &[2, 20]),
            ..DiskFaults::default()
        }
    }

    /// As [`DiskFaults::swarm`], and calls fail now and then: whatever runs on it may stop with
    /// an error, yet may not lose what it acknowledged.
    pub fn failing_swarm(random: &mut Random) -> Self {
        DiskFaults {
            read_error: maybe(random, &[50, 1000]),
            write_error: maybe(random, &[50, 1000]),
            sync_error: maybe(random, &[50, 1000]),
            name_error: maybe(random, &[100, 1000]),
            ..DiskFaults::swarm(random)
        }
    }
}

/// The network between nodes.
#[derive(Clone, Debug)]
pub struct NetworkFaults {
    /// One way between two nodes.
    pub delay: Latency,
    /// One way within a node; nothing is lost there.
    pub loopback_delay: Latency,
    /// A packet is lost. A stream sends it again after a time-out, and what follows it waits; a
    /// datagram is gone.
    pub loss: Chance,
    /// A connection breaks for both sides when a packet is sent.
    pub reset: Chance,
    /// A datagram arrives twice.
    pub duplicate: Chance,
    /// A datagram is overtaken by later ones.
    pub reorder: Chance,
    /// What is sent at once arrives in several pieces.
    pub fragment: Chance,
    /// A multishot operation ends early and wants to be submitted again (`ENOBUFS`).
    pub rearm: Chance,
    /// A cancellation takes effect only after a while, and may come too late.
    pub slow_cancel: Chance,
    /// A send without a copy is refused (`EOPNOTSUPP`), and has to be made with one.
    pub no_zero_copy: Chance,
    /// Bytes that one direction of a connection holds before its sender has to wait.
    pub socket_buffer: usize,
    /// Bytes of datagrams that a socket holds before it drops further ones.
    pub datagram_buffer: usize,
}

impl Default for NetworkFaults {
    fn default() -> Self {
        NetworkFaults {
            delay: Latency::micros(50, 500),
            loopback_delay: Latency::micros(5, 30),
            loss: Chance::Never,
            reset: Chance::Never,
            duplicate: Chance::Never,
            reorder: Chance::Never,
            fragment: Chance::one_in(4),
            rearm: Chance::one_in(50),
            slow_cancel: Chance::one_in(4),
            no_zero_copy: Chance::one_in(8),
            socket_buffer: 256 << 10,
            datagram_buffer: 208 << 10,
        }
    }
}

impl NetworkFaults {
    /// A random network: near or far, with or without loss, small or large socket buffers.
    pub fn swarm(random: &mut Random) -> Self {
        let far = random.pick(&[1, 1, 10, 100]);
        NetworkFaults {
            delay: Latency::micros(random.pick(&[1, 50]), 500 * far),
            loss: maybe(random, &[20, 500]),
            reset: maybe(random, &[500, 5000]),
            duplicate: maybe(random, &[10, 100]),
            reorder: maybe(random, &[3, 30]),
            fragment: maybe(random, &[1, 2, 10]),
            rearm: maybe(random, &[2, 20]),
            slow_cancel: maybe(random, &[1, 4]),
            socket_buffer: random.pick(&[1 << 10, 16 << 10, 256 << 10]),
            ..NetworkFaults::default()
        }
    }
}

/// The processors that cores run on.
#[derive(Clone, Debug)]
pub struct CpuFaults {
    /// A core that has something to do does not get to it for a while.
    pub stall: Chance,
    /// For how long.
    pub stall_time: Latency,
}

impl Default for CpuFaults {
    fn default() -> Self {
        CpuFaults {
            stall: Chance::Never,
            stall_time: Latency::micros(1, 1000),
        }
    }
}

impl CpuFaults {
    /// Random processors, half of the time with stalls.
    pub fn swarm(random: &mut Random) -> Self {
        CpuFaults {
            stall: maybe(random, &[10, 100, 1000]),
            ..CpuFaults::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Purpose;
    use super::*;

    #[test]
    fn the_nth_case_strikes_once() {
        let mut random = Random::new(1, Purpose::Disk, 0);
        let mut chance = Chance::Nth(3);
        let struck: Vec<bool> = (0..6).map(|_| chance.strikes(&mut random)).collect();
        assert_eq!(struck, [false, false, true, false, false, false]);
    }

    #[test]
    fn latencies_stay_within_their_bounds() {
        let mut random = Random::new(1, Purpose::Disk, 0);
        let mut latency = Latency::between(Duration::from_micros(2), Duration::from_micros(3));
        assert!((0..100).all(|_| (2_000..=3_000).contains(&latency.draw(&mut random))));
        latency.slow = Chance::Always;
        assert!(latency.draw(&mut random) >= 32_000);
    }
}
