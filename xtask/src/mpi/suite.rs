//! mpi4py's own tests on our library, file by file.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Places;
use crate::process::Failure;
use crate::report::table;

/// How long one file may take.
const LIMIT: Duration = Duration::from_secs(60);
/// What the library answers where something is not built.
const UNBUILT: &str = "this operation is not built";
/// Ranks of the runs.
const RANKS: [usize; 3] = [1, 2, 3];

/// What came of one file.
#[derive(Default)]
struct Tally {
    ran: usize,
    failed: usize,
    skipped: usize,
    unsupported: usize,
    /// It did not come to its end: why.
    broken: Option<&'static str>,
}

impl Tally {
    fn shown(&self) -> String {
        let passed = self
            .ran
            .saturating_sub(self.failed + self.skipped + self.unsupported);
        let counts = format!(
            "{passed} / {} / {} / {}",
            self.failed, self.unsupported, self.skipped
        );
        match self.broken {
            Some(why) => why.to_owned(),
            None => counts,
        }
    }
}

pub(super) fn report(places: &Places, part: &str) -> Result<(), Failure> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(places.sources.join("test"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = name
            .strip_suffix(".py")
            .filter(|name| name.starts_with("test_") && name.contains(part))
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    let heads = ["file".to_owned()]
        .into_iter()
        .chain(RANKS.map(|ranks| format!("{ranks} ranks")));
    let mut rows = vec![heads.collect::<Vec<String>>()];
    let mut sums: Vec<Tally> = RANKS.iter().map(|_| Tally::default()).collect();
    for name in names {
        let mut row = vec![name.clone()];
        for (at, ranks) in RANKS.into_iter().enumerate() {
            let tally = test(places, &name, ranks)?;
            println!("{name}, {ranks} ranks: {}", tally.shown());
            row.push(tally.shown());
            sums[at].ran += tally.ran;
            sums[at].failed += tally.failed;
            sums[at].skipped += tally.skipped;
            sums[at].unsupported += tally.unsupported;
        }
        rows.push(row);
    }
    rows.push(
        ["all".to_owned()]
            .into_iter()
            .chain(sums.iter().map(Tally::shown))
            .collect(),
    );
    println!(
        "\nmpi4py's tests: passed / failed / unsupported / skipped\n\n{}",
        table(&rows)
    );
    Ok(())
}

fn test(places: &Places, name: &str, ranks: usize) -> Result<Tally, Failure> {
    let output = places
        .sources
        .join("output")
        .join(format!("{name}-{ranks}"));
    let mut child = Command::new(&places.launcher)
        .env("LD_LIBRARY_PATH", &places.library)
        .current_dir(places.sources.join("test"))
        .arg("-n")
        .arg(ranks.to_string())
        .arg("--output")
        .arg(&output)
        .arg(places.venv.join("bin/python"))
        .args(["main.py", "--no-builddir", name])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let until = Instant::now() + LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            // Its ranks end with it.
            child.kill()?;
            child.wait()?;
            return Ok(Tally {
                broken: Some("took too long"),
                ..Tally::default()
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut worst = Tally::default();
    for rank in 0..ranks {
        let tally = read(&output.join(format!("rank-{rank}")))?;
        if tally.failed + tally.unsupported >= worst.failed + worst.unsupported {
            worst = tally;
        }
    }
    Ok(worst)
}

/// What one rank wrote.
fn read(path: &Path) -> Result<Tally, Failure> {
    let bytes = std::fs::read(path)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut tally = Tally::default();
    let number = |line: &str, after: &str| -> usize {
        let rest = line.split_once(after).map_or("", |(_, rest)| rest);
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    for line in text.lines() {
        if line.starts_with("Ran ") {
            tally.ran = number(line, "Ran ");
        } else if line.starts_with("FAILED") || line.starts_with("OK") {
            tally.failed = number(line, "failures=") + number(line, "errors=");
            tally.skipped = number(line, "skipped=");
        }
    }
    let blocks =
        text.split("======================================================================");
    tally.unsupported = blocks
        .skip(1)
        .filter(|block| block.contains(UNBUILT))
        .count()
        .min(tally.failed);
    tally.failed -= tally.unsupported;
    if tally.ran == 0 && !text.contains("Ran 0") {
        tally.broken = Some(if text.contains(UNBUILT) {
            "unsupported"
        } else {
            "ended early"
        });
    }
    Ok(tally)
}
