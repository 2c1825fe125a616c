//! The results of many cases, as a page and a chart for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::str::FromStr;

use super::fault::Fault;
use super::seen::{Seen, median_and_most};

/// One case and how it ended, also as a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Result {
    /// What happened.
    pub fault: Fault,
    /// The client's name.
    pub client: String,
    /// What was seen, or the promise that was broken.
    pub ended: std::result::Result<Seen, String>,
}

impl std::fmt::Display for Result {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\t{}\t", self.fault, self.client)?;
        match &self.ended {
            Ok(seen) => write!(f, "well\t{seen}"),
            Err(why) => write!(f, "FAILED\t{}", why.trim().replace(['\n', '\t'], " ")),
        }
    }
}

impl FromStr for Result {
    type Err = String;

    fn from_str(line: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("no line of a case: {line:?}");
        let mut fields = line.splitn(4, '\t');
        let mut field = || fields.next().ok_or_else(wrong);
        let (fault, client, how, rest) = (field()?, field()?, field()?, field()?);
        Ok(Self {
            fault: fault.parse()?,
            client: client.to_owned(),
            ended: match how {
                "well" => Ok(rest.parse()?),
                "FAILED" => Err(rest.to_owned()),
                _ => return Err(wrong()),
            },
        })
    }
}

const HEAD: &str = "# Faults × clients

`cargo xtask matrix` starts real nodes, each in a network namespace of its own, has one client produce to
six partitions of three copies each, a hundred records a second to each, with `acks=all`, and two groups of
our consumers read them (one of a single member, one of two), and strikes. In the end everything that was
acknowledged has to be at its offset, once; everything that was read has to be there as it was read; no
group may have been led past a record; every partition has to take records and show them again, and all
copies be in sync. Otherwise the case has failed. Clients give a request up after 1.5 s
(`request.timeout.ms`), else all settings are the defaults, `min.insync.replicas` 2 among them.

A silence is the longest time for which a partition acknowledged nothing, or a group was given nothing of
it, between the blow and half a second after everything was well again; it counts the client's own pauses.
Figures are of a virtual machine of two cores that ran all nodes, clients and readers, so they show at least
as much what a client does as what the cluster can do.

This page is written by the command; it ends with what it does not show.

| fault | what happens to the node that leads the first partition |
|---|---|
";

const SILENCES: &str = "
## Silence

Median and longest, in milliseconds, over all partitions that a struck node led, in all cases; then the
longest of the other partitions; then the same as readers saw it.

| fault | client | cases | failed | acknowledged | given up | silence | others | readers | others |
|---|---|---|---|---|---|---|---|---|---|
";

const CHART: &str = "
![Silences of partitions whose leader was struck, each a dot](matrix.svg)
";

const MOVE: &str = "
## A node joins, and half of the partitions move

`grown` begins with 48 MiB in each partition. From sent to acknowledged, p99 in milliseconds while all was
well and from the new node's start until the last copy was where it was to be; the median of all cases.

| client | before | during | ratio |
|---|---|---|---|
";

const TAIL: &str = "
## What this does not show

- A power cut stops a file system with all that it has not flushed (ext4's shutdown, without its log). What
  it has handed to its device stays, for the device is a file: a lost flush shows, a device that lies does
  not. With `log.durability=relaxed` in place of the default, `blackout` finds records that are lost.
- Clocks are set by libfaketime, for what a node asks the system's library; the kernel's time namespaces
  have no wall clock. Two hours off are more than any time-out, and less than the time for which anything is
  kept: retention goes by the wall clock, as Kafka's does.
- One fault at a time. Their mixtures are the simulation's: `cargo xtask sim --cluster`.
";

type Cases<'a> = BTreeMap<(Fault, &'a str), Vec<&'a Result>>;

fn by_case(results: &[Result]) -> Cases<'_> {
    let mut cases = Cases::new();
    for result in results {
        let case = cases.entry((result.fault, &*result.client));
        case.or_default().push(result);
    }
    cases
}

fn well<'a>(results: &[&'a Result]) -> Vec<&'a Seen> {
    let seen = results
        .iter()
        .filter_map(|result| result.ended.as_ref().ok());
    seen.collect()
}

fn pooled(
    seen: &[&Seen],
    of: impl Fn(&Seen) -> &Vec<std::time::Duration>,
) -> Vec<std::time::Duration> {
    seen.iter()
        .flat_map(|seen| of(seen).iter().copied())
        .collect()
}

/// The whole page.
pub fn page(results: &[Result]) -> String {
    let mut page = HEAD.to_owned();
    let faults: BTreeSet<Fault> = results.iter().map(|result| result.fault).collect();
    for fault in &faults {
        page += &format!("| {fault} | {} |\n", fault.what());
    }
    page += SILENCES;
    let cases = by_case(results);
    for ((fault, client), results) in &cases {
        page += &row(*fault, client, results);
    }
    page += CHART;
    if faults.contains(&Fault::Grown) {
        page += MOVE;
        for ((_, client), results) in cases
            .iter()
            .filter(|((fault, _), _)| *fault == Fault::Grown)
        {
            let seen = well(results);
            if !seen.is_empty() {
                page += &moved(client, &seen);
            }
        }
    }
    page + TAIL
}

fn row(fault: Fault, client: &str, results: &[&Result]) -> String {
    let seen = well(results);
    let shown = |times: Vec<std::time::Duration>| match median_and_most(&times) {
        _ if times.is_empty() => "–".to_owned(),
        (median, most) => format!("{median} / {most}"),
    };
    let most = |times: Vec<std::time::Duration>| match times.is_empty() {
        true => "–".to_owned(),
        false => median_and_most(&times).1.to_string(),
    };
    let mut row = String::new();
    let _ = writeln!(
        row,
        "| {fault} | {client} | {} | {} | {} | {} | {} | {} | {} | {} |",
        results.len(),
        results.len() - seen.len(),
        seen.iter().map(|seen| seen.acknowledged).sum::<usize>(),
        seen.iter().map(|seen| seen.failed).sum::<usize>(),
        shown(pooled(&seen, |seen| &seen.struck)),
        most(pooled(&seen, |seen| &seen.others)),
        shown(pooled(&seen, |seen| &seen.readers_struck)),
        most(pooled(&seen, |seen| &seen.readers_others)),
    );
    row
}

fn moved(client: &str, seen: &[&Seen]) -> String {
    let median = |of: &dyn Fn(&Seen) -> f64| {
        let mut all: Vec<f64> = seen.iter().map(|seen| of(seen)).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    format!(
        "| {client} | {:.1} | {:.1} | {:.1} |\n",
        median(&|seen| ms(seen.p99_before)),
        median(&|seen| ms(seen.p99_during)),
        median(&|seen| ms(seen.p99_during) / ms(seen.p99_before).max(0.001)),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn result(fault: Fault, struck: &[u64]) -> Result {
        Result {
            fault,
            client: "ours".to_owned(),
            ended: Ok(Seen {
                acknowledged: 10,
                struck: struck.iter().copied().map(Duration::from_millis).collect(),
                p99_before: Duration::from_millis(4),
                p99_during: Duration::from_millis(10),
                ..Seen::default()
            }),
        }
    }

    #[test]
    fn what_is_kept_is_read_back() {
        let failed = Result {
            ended: Err("two\nlines\tand a tab".to_owned()),
            ..result(Fault::Kill, &[])
        };
        let one_line = failed.to_string();
        assert_eq!(
            one_line
                .parse::<Result>()
                .and_then(|read| read.ended.map(drop)),
            Err("two lines and a tab".to_owned())
        );
        let well = result(Fault::PowerCut, &[3, 4]);
        assert_eq!(well.to_string().parse(), Ok(well));
        assert!("kill\tours\tsomehow\t".parse::<Result>().is_err());
    }

    #[test]
    fn a_row_has_all_cases_of_a_fault_and_a_client() {
        let failed = Result {
            ended: Err("lost".to_owned()),
            ..result(Fault::Kill, &[])
        };
        let results = [
            result(Fault::Kill, &[700, 100]),
            result(Fault::Kill, &[300]),
            failed,
            result(Fault::Grown, &[5]),
        ];
        let page = page(&results);
        assert!(page.contains("| kill | ours | 3 | 1 | 20 | 0 | 300 / 700 | – | – | – |"));
        assert!(page.contains("| ours | 4.0 | 10.0 | 2.5 |"));
        assert!(!page.contains("| pause |"));
    }
}
