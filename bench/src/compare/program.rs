//! Other programs as the load: each is started with where to write and how much, and prints one line
//! of JSON that tells what it did.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::plan::Work;
use super::system::System;
use crate::Failure;

/// A program that writes to a system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// By which works name it; programs of one name do the same work on different systems.
    pub(crate) name: String,
    pub(crate) system: String,
    words: Vec<String>,
}

/// `NAME@SYSTEM=WORD,WORD,…`.
pub(crate) fn program(text: &str) -> Result<Program, String> {
    let wanted = || format!("{text:?} is not NAME@SYSTEM=PROGRAM,ARGUMENT,…");
    let (who, words) = text.split_once('=').ok_or_else(wanted)?;
    let (name, system) = who.split_once('@').ok_or_else(wanted)?;
    let words: Vec<String> = words.split(',').map(str::to_owned).collect();
    match name.is_empty() || system.is_empty() || words[0].is_empty() {
        true => Err(wanted()),
        false => Ok(Program {
            name: name.to_owned(),
            system: system.to_owned(),
            words,
        }),
    }
}

/// What it has done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Done {
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    /// CPU time of its own.
    pub(crate) cpu: Duration,
}

impl Program {
    /// Runs it: ADDRESS TOPIC RECORDS SIZE are its last arguments.
    pub(crate) fn run(&self, work: &Work, system: &System, topic: &str) -> Result<Done, Failure> {
        let name = &self.name;
        let mut command = Command::new(&self.words[0]);
        command
            .args(&self.words[1..])
            .args([&*system.address, topic])
            .args([work.records.to_string(), work.record_size.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        let output = command.output();
        let output = output.map_err(|error| Failure(format!("cannot start {name}: {error}")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(Failure(format!("{name}: {}: {text}", output.status)));
        }
        read(&text).ok_or_else(|| Failure(format!("{name} does not tell what it did: {text}")))
    }
}

/// The last line that is JSON.
fn read(text: &str) -> Option<Done> {
    let mut lines = text.lines().rev();
    let told: Value = lines.find_map(|line| serde_json::from_str(line).ok())?;
    let seconds = |key: &str| told.get(key)?.as_f64().filter(|value| *value >= 0.0);
    Some(Done {
        records: told.get("records")?.as_u64()?,
        seconds: seconds("seconds")?,
        cpu: Duration::try_from_secs_f64(seconds("cpu_seconds")?).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_named_with_their_system() {
        let found = program("perf@kafka=java,-cp,x").unwrap();
        assert_eq!((&*found.name, &*found.system), ("perf", "kafka"));
        assert_eq!(found.words, ["java", "-cp", "x"]);
        for bad in ["", "perf=java", "@kafka=java", "perf@=java", "perf@kafka="] {
            assert!(program(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_line_tells() {
        let text = "warming up\n{\"records\": 7, \"seconds\": 0.5, \"cpu_seconds\": 0.25}\n";
        let done = read(text).unwrap();
        assert_eq!((done.records, done.seconds), (7, 0.5));
        assert_eq!(done.cpu, Duration::from_millis(250));
        assert_eq!(read("nothing"), None);
        assert_eq!(
            read("{\"records\": 7, \"seconds\": -1, \"cpu_seconds\": 0}"),
            None
        );
    }
}
