//! Partitions on simulated machines: what they promise, across crashes, damage, full and failing
//! disks. Every failure names its seed; `SEED=n cargo test -p ringmill-log --test log NAME`
//! replays it alone.

mod basics;
mod compaction;
mod compaction_crash;
mod compaction_damage;
mod compaction_txns;
mod crash;
mod damage;
mod damaged_files;
mod fixture;
mod follow;
mod lanes;
mod races;
mod repair;
mod replica;
mod retention;
mod space;
mod stress;
mod times;
mod transactions;
mod truncation;
mod truncation_races;
mod truncation_stress;
