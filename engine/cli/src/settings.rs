//! The broker's settings from three places: a flag wins over the environment, the environment over
//! the TOML file. Every key of the broker's table is all three.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, FromArgMatches};
use ringmill_engine::config::{BrokerConfig, Key, broker};

use crate::Failure;

/// Flags whose names are shorter than their keys'.
const SHORT_FLAGS: [(&str, &str, &str); 3] = [
    ("cluster.seeds", "join", "HOST:PORT"),
    ("log.dirs", "data", "DIR"),
    ("listeners", "listen", "ADDR:PORT"),
];

/// The arguments of `serve`.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServeArgs {
    file: Option<PathBuf>,
    /// Key and value, by flag or environment.
    given: Vec<(String, String)>,
}

fn flag(key: &Key) -> Arg {
    let short = SHORT_FLAGS.iter().find(|(name, ..)| *name == key.name);
    let dashed = key.name.replace(['.', '_'], "-");
    let long = short.map_or(dashed, |(_, long, _)| (*long).to_owned());
    let environment = format!("RINGMILL_{}", long.replace('-', "_").to_uppercase());
    let mut arg = Arg::new(key.name)
        .long(long)
        .env(environment)
        .hide_env_values(true)
        .value_name(short.map_or("VALUE", |(.., value)| value))
        .help(format!("{} [default: {}]", key.doc, shown(key.default)));
    if short.is_none() && !["cores", "node.id"].contains(&key.name) {
        // A hundred settings would hide the few that most need: all of them are in --help.
        arg = arg.hide_short_help(true);
    }
    arg
}

fn shown(default: &str) -> &str {
    if default.is_empty() { "none" } else { default }
}

impl clap::Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .env("RINGMILL_CONFIG")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A TOML file with any of these settings, by their names");
        command.arg(file).args(broker::TABLE.keys.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let file = matches.get_one::<PathBuf>("config").cloned();
        let given = broker::TABLE.keys.iter().filter_map(|key| {
            let value = matches.get_one::<String>(key.name)?;
            Some((key.name.to_owned(), value.clone()))
        });
        Ok(Self {
            file,
            given: given.collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl ServeArgs {
    /// The settings in force.
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML, an unknown name, a value out of type or range.
    pub(crate) fn config(&self) -> Result<BrokerConfig, Failure> {
        let mut pairs = Vec::new();
        if let Some(path) = &self.file {
            let shown = path.display();
            let text = std::fs::read_to_string(path)
                .map_err(|e| Failure::new(format!("cannot read {shown}: {e}")))?;
            pairs = pairs_of(&text).map_err(|e| Failure::new(format!("{shown}: {e}")))?;
        }
        // Later ones win.
        pairs.extend(self.given.iter().cloned());
        BrokerConfig::from_pairs(pairs).map_err(Failure::new)
    }
}

/// The settings of a TOML document: `data`, `listen` and Kafka's names, dotted or as tables.
fn pairs_of(text: &str) -> Result<Vec<(String, String)>, String> {
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| e.message().to_owned())?;
    let mut pairs = Vec::new();
    flatten("", &table, &mut pairs)?;
    Ok(pairs)
}

fn flatten(
    prefix: &str,
    table: &toml::Table,
    pairs: &mut Vec<(String, String)>,
) -> Result<(), String> {
    for (name, value) in table {
        let name = format!("{prefix}{name}");
        let short = SHORT_FLAGS.iter().find(|(_, flag, _)| *flag == name);
        let value = match value {
            toml::Value::Table(inner) => {
                flatten(&format!("{name}."), inner, pairs)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            toml::Value::Array(_) | toml::Value::Datetime(_) => {
                return Err(format!("{name}: a list or a date is no setting"));
            }
        };
        pairs.push((short.map_or(name, |(key, ..)| (*key).to_owned()), value));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn parse(args: &[&str]) -> ServeArgs {
        let words = std::iter::once("serve").chain(args.iter().copied());
        <Alone as clap::Parser>::parse_from(words).serve
    }

    #[test]
    fn every_key_is_a_flag_and_flags_do_not_clash() {
        <Alone as clap::CommandFactory>::command().debug_assert();
        let config = parse(&[
            "--data",
            "/tmp/x",
            "--listen",
            "127.0.0.1:1",
            "--num-partitions",
            "7",
        ]);
        let config = config.config().unwrap();
        assert_eq!(config.data_dir, PathBuf::from("/tmp/x"));
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.live.num_partitions, 7);
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let path =
            std::env::temp_dir().join(format!("ringmill-settings-{}.toml", std::process::id()));
        let text = "data = \"/from/file\"\nlisten = \"127.0.0.1:2\"\nnum.partitions = 3\n\
                    [log]\nretention.ms = -1\n";
        std::fs::write(&path, text).unwrap();
        let args = parse(&["--config", path.to_str().unwrap(), "--num-partitions", "9"]);
        let config = args.config().unwrap();
        let _ = std::fs::remove_file(&path);
        assert_eq!(config.data_dir, PathBuf::from("/from/file"));
        assert_eq!((config.listen.port(), config.live.num_partitions), (2, 9));
    }

    #[test]
    fn mistakes_name_the_setting() {
        let wrong = |text: &str| BrokerConfig::from_pairs(pairs_of(text).unwrap()).unwrap_err();
        assert!(
            wrong("num.partitons = 3")
                .to_string()
                .contains("num.partitons")
        );
        assert!(
            wrong("num.partitions = \"many\"")
                .to_string()
                .contains("num.partitions")
        );
        assert!(pairs_of("x = [1]").unwrap_err().contains('x'));
        assert!(pairs_of("x = ").is_err());
    }
}
