//! What is to be measured: works, as the command line names them.

use std::time::Duration;

use crate::options::{count, rate, size, time};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records go in: as fast as each system takes them, then at half of what the slowest takes.
    Produce,
    /// Records that are there come out, as fast as they can.
    Consume,
    /// Records go in at a rate and come out of the other side.
    EndToEnd,
    /// Requests of a single record, each producer's next after its last was acknowledged.
    Single,
    /// Records go in at a rate while somebody reads what is there from its beginning, not in memory
    /// any more.
    CatchUp,
    /// Another program writes records.
    Program,
}

impl Kind {
    const NAMES: [(&'static str, Self); 6] = [
        ("produce", Self::Produce),
        ("consume", Self::Consume),
        ("end-to-end", Self::EndToEnd),
        ("single", Self::Single),
        ("catch-up", Self::CatchUp),
        ("program", Self::Program),
    ];

    fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        let found = names.find(|(_, kind)| *kind == self);
        found.map_or("", |(name, _)| name)
    }

    /// Whether there is a topic with records before anything is measured.
    pub(crate) fn reads_what_is_there(self) -> bool {
        matches!(self, Self::Consume | Self::CatchUp)
    }
}

/// A work, apart from how often and how long.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    /// What an acknowledgement promises.
    pub(crate) promise: String,
    /// Bytes of each record's value.
    pub(crate) record_size: usize,
    pub(crate) partitions: i32,
    pub(crate) replication: i16,
    /// Each with connections of its own.
    pub(crate) producers: u64,
    /// Each reads everything.
    pub(crate) consumers: usize,
    /// Records that are there before.
    pub(crate) records: u64,
    /// Records per second in all; None: it depends on the kind.
    pub(crate) rate: Option<u64>,
    /// Bytes at which a batch is full.
    pub(crate) batch_size: usize,
    /// How long a batch waits to be full.
    pub(crate) linger: Duration,
    /// The program that does it, if another one does.
    pub(crate) by: String,
}

/// Records per second of works that are no race.
const CALM: u64 = 5_000;
/// Bytes of records that are there before, if their number is not said.
const THERE: usize = 256 << 20;

impl Work {
    /// As the words of `KIND[,KEY=VALUE…]` say, else as in `base`.
    pub(crate) fn parse(text: &str, base: &Self) -> Result<Self, String> {
        let mut words = text.split(',');
        let name = words.next().unwrap_or_default();
        let kind = Kind::NAMES.iter().find(|(known, _)| *known == name);
        let (_, kind) = kind.ok_or_else(|| {
            let names = Kind::NAMES.map(|(name, _)| name);
            format!("{name:?} is no work: {}", names.join(", "))
        })?;
        let mut work = Self {
            kind: *kind,
            records: 0,
            ..base.clone()
        };
        if matches!(kind, Kind::Single | Kind::EndToEnd) {
            work.linger = Duration::ZERO;
        }
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| format!("{word:?} is not KEY=VALUE"))?;
            work.set(key, value)?;
        }
        if (work.kind == Kind::Program) == work.by.is_empty() {
            return Err(format!(
                "{text:?}: program,by=NAME is the work of a program"
            ));
        }
        if work.records == 0 {
            work.records = (THERE / work.record_size.max(1)) as u64;
        }
        Ok(work)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let whole = || count(value);
        let small = |most: u64| match count(value)? {
            number if (1..=most).contains(&number) => Ok(number),
            _ => Err(format!("{key} is from 1 to {most}")),
        };
        match key {
            "promise" => value.clone_into(&mut self.promise),
            "size" => self.record_size = size(value)?,
            "partitions" => self.partitions = small(1_000_000)? as i32,
            "replication" => self.replication = small(100)? as i16,
            "producers" => self.producers = small(100_000)?,
            "consumers" => self.consumers = small(100_000)? as usize,
            "records" => self.records = whole()?,
            "rate" => self.rate = Some(rate(value)?),
            "batch" => self.batch_size = size(value)?,
            "linger" => self.linger = time(value)?,
            "by" => value.clone_into(&mut self.by),
            _ => {
                return Err(format!(
                    "{key:?} is no setting of a work: promise, size, partitions, replication, \
                     producers, consumers, records, rate, batch, linger, by"
                ));
            }
        }
        Ok(())
    }

    /// The rate of a work that is no race.
    pub(crate) fn calm_rate(&self) -> u64 {
        self.rate.unwrap_or(CALM)
    }

    /// What is said of it in tables; what is as it was by default is left out.
    pub(crate) fn name(&self) -> String {
        let what = match self.kind {
            Kind::Program => format!("produce by {}", self.by),
            kind => kind.name().to_owned(),
        };
        let mut words = vec![format!("{what} {} B", self.record_size)];
        let mut say = |many: u64, one: &str| {
            if many > 1 {
                words.push(format!("{many} {one}s"));
            }
        };
        say(self.partitions as u64, "partition");
        if self.kind != Kind::Consume {
            say(self.producers, "producer");
        }
        if matches!(self.kind, Kind::EndToEnd | Kind::Consume | Kind::CatchUp) {
            say(self.consumers as u64, "consumer");
        }
        if self.replication > 1 {
            words.push(format!("{} copies", self.replication));
        }
        if self.promise != "default" {
            words.push(self.promise.clone());
        }
        words.join(", ")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn base() -> Work {
        Work {
            kind: Kind::Produce,
            promise: "default".to_owned(),
            record_size: 100,
            partitions: 1,
            replication: 1,
            producers: 1,
            consumers: 1,
            records: 0,
            rate: None,
            batch_size: 256 << 10,
            linger: Duration::from_millis(5),
            by: String::new(),
        }
    }

    #[test]
    fn a_work_is_what_it_is_said_to_be() {
        let work = Work::parse("produce,size=1k,producers=50,promise=flushed", &base()).unwrap();
        assert_eq!((work.record_size, work.producers), (1024, 50));
        assert_eq!(work.name(), "produce 1024 B, 50 producers, flushed");
        assert_eq!(work.linger, base().linger);
        let single = Work::parse("single,producers=16", &base()).unwrap();
        assert_eq!(single.linger, Duration::ZERO);
        let consume = Work::parse("consume,records=7,consumers=20", &base()).unwrap();
        assert_eq!((consume.records, consume.consumers), (7, 20));
        assert!(consume.kind.reads_what_is_there());
        assert_eq!(Work::parse("consume", &base()).unwrap().records, 2_684_354);
    }

    #[test]
    fn what_is_no_work_is_told() {
        for bad in [
            "",
            "produced",
            "produce,size",
            "produce,size=x",
            "produce,colour=red",
            "produce,producers=0",
            "produce,replication=1000",
            "produce,by=perf",
            "program",
        ] {
            assert!(Work::parse(bad, &base()).is_err(), "{bad}");
        }
    }
}
