//! The systems that are compared, as the command line names them.

use std::time::Duration;

use crate::Failure;
use crate::process::{reset_peak, usage, written};

/// A system that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) name: String,
    /// `HOST:PORT` of one of its nodes.
    pub(crate) address: String,
    /// The processes of its nodes, if they run here.
    pub(crate) processes: Vec<u32>,
}

/// `NAME=HOST:PORT[,PID…]`.
pub(crate) fn system(text: &str) -> Result<System, String> {
    let wanted = || format!("{text:?} is not NAME=HOST:PORT or NAME=HOST:PORT,PID,…");
    let (name, rest) = text.split_once('=').ok_or_else(wanted)?;
    let mut parts = rest.split(',');
    let address = parts.next().filter(|address| address.contains(':'));
    let address = address.ok_or_else(wanted)?;
    let processes: Result<Vec<u32>, _> = parts.map(str::parse).collect();
    let processes = processes.map_err(|_| wanted())?;
    match name.is_empty() {
        true => Err(wanted()),
        false => Ok(System {
            name: name.to_owned(),
            address: address.to_owned(),
            processes,
        }),
    }
}

/// A topic's setting by which a system makes a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicSetting {
    pub(crate) system: String,
    pub(crate) promise: String,
    pub(crate) key: String,
    pub(crate) value: String,
}

/// `SYSTEM:PROMISE:KEY=VALUE`.
pub(crate) fn topic_setting(text: &str) -> Result<TopicSetting, String> {
    let parse = || {
        let (who, setting) = text.split_once('=')?;
        let mut words = who.splitn(3, ':').map(str::to_owned);
        Some(TopicSetting {
            system: words.next()?,
            promise: words.next()?,
            key: words.next()?,
            value: setting.to_owned(),
        })
    };
    parse().ok_or_else(|| format!("{text:?} is not SYSTEM:PROMISE:KEY=VALUE"))
}

/// What the processes of a system have used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) cpu: Duration,
    /// The most memory at a time, in bytes.
    pub(crate) peak_memory: u64,
    /// Bytes for their disks.
    pub(crate) written: u64,
}

impl Spent {
    /// What has come since then; the memory is that of now.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            peak_memory: self.peak_memory,
            written: self.written.saturating_sub(before.written),
        }
    }
}

impl System {
    /// What its processes have used so far, together.
    pub(crate) fn spent(&self) -> Result<Spent, Failure> {
        let mut spent = Spent::default();
        for process in &self.processes {
            let usage = usage(Some(*process))?;
            spent.cpu += usage.cpu;
            spent.peak_memory += usage.peak_memory;
            spent.written += written(*process)?;
        }
        Ok(spent)
    }

    /// Its most memory is told anew from here on, if that is allowed.
    pub(crate) fn reset_peak(&self) {
        for process in &self.processes {
            reset_peak(*process);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_named_with_their_processes() {
        let kafka = system("kafka=127.0.0.1:9092,12,13").unwrap();
        assert_eq!(
            (kafka.name.as_str(), kafka.address.as_str()),
            ("kafka", "127.0.0.1:9092")
        );
        assert_eq!(kafka.processes, [12, 13]);
        for bad in ["", "kafka", "=a:1", "kafka=nowhere", "kafka=a:1,x"] {
            assert!(system(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_belong_to_a_system_and_a_promise() {
        let setting = topic_setting("kafka:flushed:flush.messages=1").unwrap();
        assert_eq!(
            (setting.system.as_str(), setting.promise.as_str()),
            ("kafka", "flushed")
        );
        assert_eq!(
            (setting.key.as_str(), setting.value.as_str()),
            ("flush.messages", "1")
        );
        for bad in ["", "kafka:x", "kafka:flush.messages=1"] {
            assert!(topic_setting(bad).is_err(), "{bad}");
        }
    }
}
