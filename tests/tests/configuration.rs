//! docs/CONFIGURATION.md holds every setting as the tables in the code have it.
//! `CONFIGURATION=write cargo test -p ringmill-tests --test configuration` writes it.

use std::fmt::Write;
use std::path::Path;

use ringmill_engine::config::{Key, Kind, Table, broker, client_metrics, group, topic};

const HEAD: &str = "# Configuration

Kafka's names with Kafka's meaning, and a few of our own. A topic's settings are set when it is
created or changed (`ringmill topic alter`, or any Kafka client), a group's by any Kafka client; a broker's in the config file (TOML),
as a flag (`--log-retention-ms`), as a variable (`RINGMILL_LOG_RETENTION_MS`), or, where *live*, while it
runs. An unknown name or a wrong value is refused with Kafka's error. DescribeConfigs documents each.

This page is written from the tables in the code (`tests/tests/configuration.rs`).
";

fn values(kind: Kind) -> String {
    match kind {
        Kind::Bool => "true, false".to_owned(),
        Kind::Int(min, max) | Kind::Long(min, max) => match max {
            i64::MAX => format!("{min} and more"),
            _ => format!("{min} to {max}"),
        },
        Kind::Double(min, f64::INFINITY) => format!("{min} and more"),
        Kind::Double(min, max) => format!("{min} to {max}"),
        Kind::Choice(words) => words.join(", "),
        Kind::List([]) => "a list".to_owned(),
        Kind::List(words) => format!("a list of {}", words.join(", ")),
        Kind::Replicas => "`*`, or a list of PARTITION:NODE".to_owned(),
        Kind::Text => "text".to_owned(),
    }
}

fn row(text: &mut String, key: &Key) {
    let default = match key.default {
        "" => "empty".to_owned(),
        "9223372036854775807" if key.name.ends_with(".rate") => "no limit".to_owned(),
        "9223372036854775807" => "never".to_owned(),
        value => format!("`{value}`"),
    };
    let when = if key.dynamic { "live" } else { "start" };
    let why = key
        .without_effect
        .map(|why| format!(" *Without effect: {why}*"));
    let synonym = key
        .synonym
        .map(|name| format!(" Default: the broker's `{name}`."));
    let (name, doc) = (key.name, key.doc.replace('|', "\\|"));
    let (values, synonym, why) = (
        values(key.kind),
        synonym.unwrap_or_default(),
        why.unwrap_or_default(),
    );
    writeln!(
        text,
        "| `{name}` | {default} | {values} | {when} | {doc}{synonym}{why} |"
    )
    .unwrap();
}

fn section(text: &mut String, title: &str, table: &Table) {
    writeln!(text, "\n## {title}\n\n| name | default | values | set | |").unwrap();
    text.push_str("|---|---|---|---|---|\n");
    table.keys.iter().for_each(|key| row(text, key));
}

#[test]
fn the_page_of_settings_is_as_the_code_has_them() {
    let mut text = HEAD.to_owned();
    section(&mut text, "Topics", &topic::TABLE);
    section(&mut text, "Brokers", &broker::TABLE);
    section(&mut text, "Groups", &group::TABLE);
    section(&mut text, "Client metrics", &client_metrics::TABLE);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md");
    if std::env::var("CONFIGURATION").is_ok_and(|value| value == "write") {
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let remedy = "CONFIGURATION=write cargo test -p ringmill-tests --test configuration";
    assert!(found == text, "docs/CONFIGURATION.md is stale: {remedy}");
}
