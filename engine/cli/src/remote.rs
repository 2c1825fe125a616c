//! What the commands that talk to a broker share: where it is, and how their answers are printed.

use std::future::Future;
use std::io::{self, Write};

use ringmill_client::local::{Client, ClientConfig};
use ringmill_ring::RingConfig;
use serde_json::Value;

use crate::Failure;

/// Where the broker is.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Remote {
    /// A broker of the cluster
    #[arg(
        long,
        global = true,
        value_name = "ADDR:PORT",
        env = "RINGMILL_BOOTSTRAP",
        default_value = "127.0.0.1:9092"
    )]
    pub(crate) bootstrap: String,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Remote {
    /// Connects.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        connect(&self.bootstrap).await
    }
}

/// A client of the broker at `address`.
pub(crate) async fn connect(address: &str) -> Result<Client, Failure> {
    let config = ClientConfig::new([address]);
    Client::connect(config).await.map_err(Failure::new)
}

/// Runs a command on a ring of its own.
pub(crate) fn run<F>(command: F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    ringmill_ring::run(RingConfig::default(), command).map_err(Failure::new)?
}

/// Prints an answer; a reader that has gone away (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(error)),
        _ => Ok(()),
    }
}

/// Prints an answer in JSON.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// Rows in aligned columns, the first row as their heads.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not NAME=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_text() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let text = table(&[
            row(&["name", "n"]),
            row(&["x", "100"]),
            row(&["longer", ""]),
        ]);
        assert_eq!(text, "name    n\nx       100\nlonger\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn pairs_have_a_name() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(pair("a").is_err() && pair("=b").is_err());
    }
}
