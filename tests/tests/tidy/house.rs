//! The picture of DESIGN and docs/ARCHITECTURE.md as a table: which crates there are, on which
//! floor, and which others each may use. Arrows point down only.

use crate::source::{Finding, Tree};

/// A crate's place.
struct Room {
    folder: &'static str,
    package: &'static str,
    floor: u8,
    may_use: &'static [&'static str],
}

const fn room(
    floor: u8,
    folder: &'static str,
    package: &'static str,
    may_use: &'static [&'static str],
) -> Room {
    Room {
        folder,
        package,
        floor,
        may_use,
    }
}

/// Everything below floor 4: what the tests of the whole may reach into.
const BELOW_4: &[&str] = &[
    "ringmill-ring",
    "ringmill-wire",
    "ringmill-log",
    "ringmill-rpc",
    "ringmill-mpi",
    "ringmill-mpi-abi",
    "ringmill-multicast",
    "ringmill-media",
    "ringmill-replication",
    "ringmill-engine",
    "ringmill-client",
];

const BELOW_4_AND_TESTS: &[&str] = &[
    "ringmill-ring",
    "ringmill-wire",
    "ringmill-log",
    "ringmill-engine",
    "ringmill-client",
    "ringmill-tests",
];

const HOUSE: &[Room] = &[
    room(0, "net/ring", "ringmill-ring", &[]),
    room(0, "engine/wire", "ringmill-wire", &[]),
    // Stands in for a crate of openraft's.
    room(0, "replication/histogram", "base2histogram", &[]),
    room(1, "net/rpc", "ringmill-rpc", &["ringmill-ring"]),
    room(1, "net/mpi", "ringmill-mpi", &["ringmill-ring"]),
    // A shared library for programs of other languages; a crate of its own, because what it exports
    // must not get into programs that use the crate below it.
    room(
        2,
        "net/mpi/abi",
        "ringmill-mpi-abi",
        &["ringmill-mpi", "ringmill-ring"],
    ),
    room(1, "net/multicast", "ringmill-multicast", &["ringmill-ring"]),
    room(1, "net/media", "ringmill-media", &["ringmill-ring"]),
    room(
        1,
        "engine/log",
        "ringmill-log",
        &["ringmill-wire", "ringmill-ring"],
    ),
    room(
        2,
        "replication",
        "ringmill-replication",
        &["ringmill-log", "ringmill-wire", "ringmill-ring"],
    ),
    room(
        3,
        "engine/broker",
        "ringmill-engine",
        &[
            "ringmill-replication",
            "ringmill-log",
            "ringmill-wire",
            "ringmill-ring",
        ],
    ),
    room(
        3,
        "client",
        "ringmill-client",
        &["ringmill-wire", "ringmill-ring", "ringmill-rpc"],
    ),
    // The binary's own tests stand here, because Cargo tells only them where it is; they use the
    // machinery of tests/. That the binary itself does not is for Cargo.toml's reader to see.
    room(5, "engine/cli", "ringmill", BELOW_4_AND_TESTS),
    room(4, "bench", "ringmill-bench", BELOW_4),
    room(4, "fuzz", "ringmill-fuzz", BELOW_4),
    room(4, "tests", "ringmill-tests", BELOW_4),
    // Chores only start programs.
    room(4, "xtask", "xtask", &[]),
];

/// The folders of the root; a further one is a new wing and needs the picture changed.
const TOP_FOLDERS: [&str; 10] = [
    "bench",
    "client",
    "docs",
    "engine",
    "examples",
    "fuzz",
    "net",
    "replication",
    "tests",
    "xtask",
];

/// Arrows of the table itself that do not point down.
pub(crate) fn table() -> Vec<Finding> {
    upward(HOUSE)
}

fn upward(rooms: &[Room]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for room in rooms {
        for used in room.may_use {
            match rooms.iter().find(|other| other.package == *used) {
                Some(other) if other.floor < room.floor => {}
                Some(_) => findings.push(not_down(room, used)),
                None => findings.push(Finding::new(room.folder, 1, format!("unknown: {used}"))),
            }
        }
    }
    findings
}

fn not_down(room: &Room, used: &str) -> Finding {
    let message = format!("{} must not use {used}: arrows point down", room.package);
    Finding::new(room.folder, 1, message)
}

/// Manifests with an arrow that the table does not have, or without the workspace's lints.
pub(crate) fn manifests(tree: &Tree) -> Vec<Finding> {
    let ours = tree
        .with_ending("Cargo.toml")
        // what drives foreign clients is a workspace of its own, and no part of the house
        .filter(|file| file.path != "Cargo.toml" && !file.path.starts_with("tests/conformance/"));
    ours.flat_map(|file| manifest(&file.path, &file.text))
        .collect()
}

fn manifest(path: &str, text: &str) -> Vec<Finding> {
    let finding = |message: String| vec![Finding::new(path, 1, message)];
    let manifest: toml::Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => return finding(error.to_string()),
    };
    let package = manifest
        .get("package")
        .and_then(|package| package.get("name")?.as_str());
    let folder = path.strip_suffix("/Cargo.toml").unwrap_or_default();
    let Some(room) = HOUSE
        .iter()
        .find(|room| room.folder == folder && Some(room.package) == package)
    else {
        return finding("a crate that the picture does not have".into());
    };
    let mut findings = Vec::new();
    for used in dependencies(&manifest) {
        let ours = HOUSE.iter().any(|other| other.package == used);
        if ours && used != room.package && !room.may_use.contains(&used.as_str()) {
            let message = format!("{} must not use {used} (see ARCHITECTURE)", room.package);
            findings.push(Finding::new(path, 1, message));
        }
    }
    let lints = manifest.get("lints").and_then(|l| l.get("workspace"));
    if lints != Some(&toml::Value::Boolean(true)) {
        findings.extend(finding("without `[lints] workspace = true`".into()));
    }
    findings
}

/// Names of the packages that a manifest uses, in whatever table.
fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    let mut names = Vec::new();
    for table in tables {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(entries) = table.get(kind).and_then(toml::Value::as_table) else {
                continue;
            };
            for (name, entry) in entries {
                let renamed = entry.get("package").and_then(toml::Value::as_str);
                names.push(renamed.unwrap_or(name).to_owned());
            }
        }
    }
    names
}

/// Folders of the root outside the fixed list.
pub(crate) fn folders(names: &[String]) -> Vec<Finding> {
    names
        .iter()
        .filter(|name| !TOP_FOLDERS.contains(&name.as_str()))
        .map(|name| Finding::new(name, 1, "a top-level folder outside the fixed list"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(folder: &str, package: &str, rest: &str) -> Vec<Finding> {
        let text = format!("[package]\nname = \"{package}\"\n{rest}\n[lints]\nworkspace = true\n");
        manifest(&format!("{folder}/Cargo.toml"), &text)
    }

    #[test]
    fn an_arrow_up_or_across_is_found_in_every_kind_of_table() {
        for bad in [
            "[dependencies]\nringmill-engine.workspace = true",
            "[dependencies]\nbroker = { package = \"ringmill-engine\", path = \"x\" }",
            "[dev-dependencies]\nringmill-engine.workspace = true",
            "[build-dependencies]\nringmill-engine.workspace = true",
            "[target.'cfg(unix)'.dependencies]\nringmill-engine.workspace = true",
        ] {
            assert_eq!(found("engine/log", "ringmill-log", bad).len(), 1, "{bad}");
            assert_eq!(found("client", "ringmill-client", bad).len(), 1, "{bad}");
            assert_eq!(found("engine/cli", "ringmill", bad), [], "{bad}");
        }
        let down = "[dependencies]\nringmill-wire.workspace = true\nbytes = \"1\"";
        assert_eq!(found("engine/log", "ringmill-log", down), []);
        assert_eq!(found("net/ring", "ringmill-ring", down).len(), 1);
    }

    #[test]
    fn a_crate_outside_the_picture_is_found() {
        assert_eq!(found("engine/extra", "ringmill-extra", "").len(), 1);
        assert_eq!(found("engine/log", "ringmill-ring", "").len(), 1);
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        let text = "[package]\nname = \"ringmill-ring\"\n";
        assert_eq!(manifest("net/ring/Cargo.toml", text).len(), 1);
    }

    #[test]
    fn an_arrow_up_in_the_table_itself_is_found() {
        assert_eq!(
            upward(&[room(0, "a", "a", &[]), room(1, "b", "b", &["a"])]),
            []
        );
        let up = [room(0, "a", "a", &["b"]), room(1, "b", "b", &[])];
        assert_eq!(upward(&up).len(), 1);
        let across = [room(1, "a", "a", &["b"]), room(1, "b", "b", &[])];
        assert_eq!(upward(&across).len(), 1);
        assert_eq!(upward(&[room(1, "a", "a", &["gone"])]).len(), 1);
    }

    #[test]
    fn a_new_top_level_folder_is_found() {
        assert_eq!(folders(&["engine".into()]), []);
        assert_eq!(folders(&["scripts".into()]).len(), 1);
    }
}
