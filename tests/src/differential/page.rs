//! The page that tells users where Ringmill's answers are not Kafka's.

use super::known::KNOWN;
use super::mask::{MASKS, What};

/// What is not in the tables: differences that no two answers show.
const HEAD: &str = "# Differences

Where Ringmill's answers are not Apache Kafka's, and why. `cargo xtask differential` sends the same
seeded requests to both and compares the answers field by field; this page is written from its tables
(`DIFFERENCES=write cargo test -p ringmill-tests differential`).

What is not served at all: moving replicas between folders, SASL and ACLs, delegation tokens, share
and streams groups, quotas by IP address and of the controller, `compression.type` other than
`producer`, loggers as a resource. The configs that are missing are in [CONFIGURATION.md](CONFIGURATION.md).

Requests that the comparison does not send: records that are null (Kafka answers nothing, we refuse
them), negative epochs and sequences of a producer (Kafka takes some, we refuse all), the bit of
LogAppendTime set by a producer (as before), one topic twice in a request (Kafka merges its parts),
a fetch session of a connection that has ended (no client goes on with one, and a session of ours
belongs to the core of its connection), and changes of the broker's own configs, which would outlive a
seed.

## Differences with a reason

| API | field | ours | Kafka's | reason |
| --- | --- | --- | --- | --- |
";

const SECOND: &str = "
## What is compared in part

Of fetched batches whose times are the broker's (those of markers, and of topics with LogAppendTime)
the times are not compared. Names that each broker draws itself must stand for each other throughout a run: a topic's id that
came once for a topic comes always. A field of every API has no API here.

| API | field | what is compared | reason |
| --- | --- | --- | --- |
";

/// The whole page.
pub fn page() -> String {
    let any = |text: &str| match text {
        "" => "any".to_owned(),
        text => format!("`{text}`"),
    };
    let mut page = HEAD.to_owned();
    for known in KNOWN {
        page += &format!(
            "| {} | `{}` | {} | {} | {} |\n",
            known.api,
            known.path,
            any(known.ours),
            any(known.theirs),
            known.reason
        );
    }
    page += SECOND;
    for mask in MASKS {
        let what = match mask.what {
            What::Named(kind) => format!("which {kind} it is"),
            What::Present => "whether there is one".to_owned(),
            What::Sign => "whether there is one (not negative)".to_owned(),
            What::Late => "what is the producer's, and whether it is".to_owned(),
            What::OfThisRun => "what belongs to the run, in any order".to_owned(),
            What::Merged => "the elements, in any order and any number of parts".to_owned(),
            What::Once => "the elements, in any order, each once".to_owned(),
            What::Unordered => "the elements, in any order".to_owned(),
            What::ByName => "the elements, by their names".to_owned(),
            What::Partitions => "how many partitions there are".to_owned(),
            What::Ignored => "nothing".to_owned(),
        };
        page += &format!(
            "| {} | `{}` | {what} | {} |\n",
            mask.api, mask.field, mask.reason
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_the_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/DIFFERENCES.md");
        if std::env::var_os("DIFFERENCES").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page(),
            "docs/DIFFERENCES.md is not what the tables say: DIFFERENCES=write cargo test -p \
             ringmill-tests differential"
        );
    }
}
