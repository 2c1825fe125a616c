//! Tables for people: what the conformance clients reported, and plain columns of text.

use std::path::Path;

use crate::clients::{Client, Ready};
use crate::peer::KAFKA_VERSION;
use crate::process::Failure;

/// One feature as one client saw it: a line of the client's report file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The feature's name, the same for every client.
    pub(crate) feature: String,
    /// Whether it held.
    pub(crate) pass: bool,
    /// How long it took, in seconds as the client wrote it.
    pub(crate) seconds: String,
    /// The cause of a failure, or a remark; one line.
    pub(crate) detail: String,
}

/// Reads a report: `feature <tab> pass|fail <tab> seconds <tab> detail` per line.
pub(crate) fn read(path: &Path) -> Result<Vec<Outcome>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure(format!("no report at {}: {error}", path.display())))?;
    text.lines().map(parse).collect()
}

fn parse(line: &str) -> Result<Outcome, Failure> {
    let mut fields = line.splitn(4, '\t');
    let mut field = || fields.next().unwrap_or_default().to_owned();
    let (feature, state, seconds, detail) = (field(), field(), field(), field());
    let pass = match state.as_str() {
        "pass" => true,
        "fail" => false,
        _ => return Err(Failure(format!("not a report line: {line:?}"))),
    };
    Ok(Outcome {
        feature,
        pass,
        seconds,
        detail,
    })
}

/// A client's name and what it saw.
type Report = (String, Vec<Outcome>);

/// All features, in the order in which clients come to them.
fn features(reports: &[Report]) -> Vec<&str> {
    let mut features: Vec<&str> = Vec::new();
    for (_, outcomes) in reports {
        for outcome in outcomes {
            if !features.contains(&outcome.feature.as_str()) {
                features.push(&outcome.feature);
            }
        }
    }
    features
}

/// The head of docs/COMPATIBILITY.md.
const PAGE: &str = "# Compatibility

Unmodified clients of Kafka against `ringmill serve`. `cargo xtask conformance all` installs them,
runs each feature and writes this page: `ok` where it held, `FAIL` where it did not, `–` where the
client has no such feature or its script does not ask for it.

";

/// The page that tells users which clients work.
/// `theirs` is what the same clients saw of Apache Kafka.
pub(crate) fn compatibility(
    reports: &[Report],
    clients: &[(Client, Ready)],
    not_run: &[(Client, String)],
    theirs: Option<&[Report]>,
) -> String {
    let ran = clients
        .iter()
        .map(|(client, ready)| (client, ready.version.as_str()));
    let absent = not_run
        .iter()
        .map(|(client, reason)| (client, reason.as_str()));
    let all: Vec<(&Client, &str)> = ran.chain(absent).collect();
    let row = |first: &str, cells: Vec<&str>| format!("| {first} | {} |\n", cells.join(" | "));
    let mut text = PAGE.to_owned();
    text += &row(
        "feature",
        all.iter().map(|(client, _)| client.name).collect(),
    );
    text += &row("---", vec!["---"; all.len()]);
    for feature in features(reports) {
        let seen = reports.iter().map(|(_, outcomes)| {
            match outcomes.iter().find(|outcome| outcome.feature == feature) {
                None => "–",
                Some(outcome) if outcome.pass => "ok",
                Some(_) => "FAIL",
            }
        });
        let unseen = not_run.iter().map(|_| "not run");
        text += &row(feature, seen.chain(unseen).collect());
    }
    text.push('\n');
    for (client, version) in &all[..clients.len()] {
        text += &format!("- `{}`: {}: {version}\n", client.name, client.title);
    }
    for (client, reason) in &all[clients.len()..] {
        text += &format!("- `{}`: {}: not run, {reason}\n", client.name, client.title);
    }
    text + &differences(reports, theirs)
}

/// Where Apache Kafka, asked the same, did otherwise.
fn differences(ours: &[Report], theirs: Option<&[Report]>) -> String {
    let Some(theirs) = theirs else {
        return String::new();
    };
    let mut text = format!(
        "\n## Apache Kafka {KAFKA_VERSION}, asked the same\n\n`cargo xtask conformance all \
         --oracle` runs every cell against Apache Kafka too, on the same machine.\n\n"
    );
    let (mut asked, mut found) = (0, Vec::new());
    for (client, outcomes) in theirs {
        let mine = ours.iter().find(|(name, _)| name == client);
        for outcome in outcomes {
            let mine = mine.and_then(|(_, all)| all.iter().find(|o| o.feature == outcome.feature));
            let Some(mine) = mine else { continue };
            asked += 1;
            if mine.pass != outcome.pass {
                let who = if outcome.pass { "Kafka" } else { "Ringmill" };
                found.push(format!(
                    "- {client}, {}: only {who} held\n",
                    outcome.feature
                ));
            }
        }
    }
    if found.is_empty() {
        text += &format!("All {asked} cells came out alike.\n");
    } else {
        text += &format!("Of {asked} cells, {} came out otherwise:\n\n", found.len());
        text.extend(found);
    }
    text
}

/// The table client × feature: seconds where it held, FAIL where not, `–` where the client has
/// no such feature.
pub(crate) fn matrix(reports: &[Report]) -> String {
    let features = features(reports);
    let mut head = vec!["feature".to_owned()];
    head.extend(reports.iter().map(|(client, _)| client.clone()));
    let mut rows = vec![head];
    for feature in features {
        let mut row = vec![feature.to_owned()];
        for (_, outcomes) in reports {
            row.push(match outcomes.iter().find(|o| o.feature == feature) {
                None => "–".to_owned(),
                Some(outcome) if outcome.pass => format!("ok {} s", outcome.seconds),
                Some(_) => "FAIL".to_owned(),
            });
        }
        rows.push(row);
    }
    table(&rows)
}

/// Columns padded to their widest cell; the first row is the head, underlined.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let padded: Vec<String> = cells.map(|(cell, w)| format!("{cell:<w$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    if !lines.is_empty() {
        let rule: Vec<String> = widths.iter().map(|w| "-".repeat(*w)).collect();
        lines.insert(1, rule.join("  "));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_and_a_missing_feature_show_in_the_matrix() {
        let a = vec![parse("keys\tpass\t0.1\t").unwrap()];
        let b = vec![
            parse("keys\tfail\t0.2\tlost 3 records").unwrap(),
            parse("admin\tpass\t0.3\t").unwrap(),
        ];
        let text = matrix(&[("kcat".into(), a), ("python".into(), b)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], "keys     ok 0.1 s  FAIL");
        assert_eq!(lines[3], "admin    –         ok 0.3 s");
    }

    #[test]
    fn a_cell_that_the_oracle_sees_otherwise_is_named() {
        let seen = |state: &str| vec![parse(&format!("keys\t{state}\t0.1\t")).unwrap()];
        let ours = [
            ("a".to_owned(), seen("pass")),
            ("b".to_owned(), seen("pass")),
        ];
        let theirs = [
            ("a".to_owned(), seen("pass")),
            ("b".to_owned(), seen("fail")),
        ];
        let text = differences(&ours, Some(&theirs));
        assert!(text.contains("- b, keys: only Ringmill held"), "{text}");
        assert!(!text.contains("- a, keys"), "{text}");
        assert!(differences(&ours, Some(&ours)).contains("All 2 cells"));
    }

    #[test]
    fn a_broken_report_is_refused_not_read_as_a_pass() {
        assert!(parse("keys\tmaybe\t0.1\t").is_err());
        assert!(parse("").is_err());
    }
}
