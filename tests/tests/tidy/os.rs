//! Time, files, sockets, threads and chance come through the ring, so that a seed replays a run.

use quote::ToTokens;
use syn::visit::{self, Visit};

use crate::source::{Exceptions, Finding, Source, WrittenPath, excepted, paths, stale};

/// Calls of the operating system outside the listed files, and listed places without any.
pub(crate) fn calls(sources: &[Source], allowed: Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut callers = Vec::new();
    for source in sources {
        // Chores and tests of the whole count as callers by their test code too.
        let tokens = match excepted(&source.path, allowed) {
            true => source.file.to_token_stream(),
            false => source.product.clone(),
        };
        for path in paths(tokens) {
            let Some(remedy) = remedy(&path) else {
                continue;
            };
            callers.push(source.path.as_str());
            if !excepted(&source.path, allowed) {
                let message = format!("`{}`: {remedy}", path.names.join("::"));
                findings.push(source.finding(path.line, message));
            }
        }
    }
    findings.extend(stale(allowed, &callers));
    findings
}

/// Types that only name an address or a span of time.
const PLAIN: [&str; 10] = [
    "AddrParseError",
    "Duration",
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "Shutdown",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "TryFromFloatSecsError",
];

/// Crates that are the operating system under another name, or another runtime.
const SYSTEM_CRATES: [&str; 10] = [
    "async_std",
    "core_affinity",
    "io_uring",
    "libc",
    "mio",
    "nix",
    "rustix",
    "socket2",
    "tokio",
    "tokio_uring",
];

/// What to use instead of a path that calls the operating system.
fn remedy(path: &WrittenPath) -> Option<&'static str> {
    let name = |at: usize| path.names.get(at).map_or("", String::as_str);
    match (name(0), name(1), name(2)) {
        (_, _, leaf) if PLAIN.contains(&leaf) => None,
        ("std" | "core", "time", _) => Some("the clock is ringmill_ring::now"),
        ("std", "thread", _) => Some("tasks are ringmill_ring::spawn, threads the ring's cores"),
        ("std" | "core", "net", _) => Some("sockets are ringmill_ring's; only addresses are std's"),
        ("std", "fs", _) => Some("files are ringmill_ring::File and ringmill_ring::fs"),
        ("std", "os", _) => Some("the system's own types stay in net/ring"),
        (first, second, _) if SYSTEM_CRATES.contains(&first) && !second.is_empty() => {
            Some("only net/ring calls the system")
        }
        _ => None,
    }
}

/// Folders whose code the simulator runs: the same seed must give the same run.
const SIMULATED: [&str; 7] = [
    "net/",
    "engine/wire/",
    "engine/log/",
    "engine/broker/",
    "replication/",
    "client/",
    "engine/cli/src/client/",
];

/// Maps with the process's random hasher, and other chance that no seed governs, in simulated
/// code.
pub(crate) fn seedless(source: &Source) -> Vec<Finding> {
    if !SIMULATED.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let Ok(product) = syn::parse2::<syn::File>(source.product.clone()) else {
        return vec![source.finding(1, "does not parse without its tests")];
    };
    let mut maps = RandomMaps(Vec::new());
    maps.visit_file(&product);
    let chance = paths(source.product.clone()).into_iter().filter(is_chance);
    maps.0
        .extend(chance.map(|path| (path.names.join("::"), path.line)));
    maps.0
        .into_iter()
        .map(|(what, line)| {
            let message = format!("`{what}` differs between runs: BTreeMap, IndexMap, a fixed-seed hasher, or ringmill_ring::random_u64");
            source.finding(line, message)
        })
        .collect()
}

fn is_chance(path: &WrittenPath) -> bool {
    let names: Vec<&str> = path.names.iter().map(String::as_str).collect();
    matches!(names[..], ["rand", "rng" | "random" | "thread_rng", ..])
        || matches!(names[..], [.., "Uuid", "new_v4"])
        || names
            .iter()
            .any(|name| ["RandomState", "DefaultHasher", "OsRng", "SysRng"].contains(name))
}

/// Hash maps and sets whose hasher is left to its default.
struct RandomMaps(Vec<(String, usize)>);

impl<'ast> Visit<'ast> for RandomMaps {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        for (at, segment) in path.segments.iter().enumerate() {
            let with_hasher = match segment.ident.to_string().as_str() {
                "HashMap" => 3,
                "HashSet" => 2,
                _ => continue,
            };
            let given = match &segment.arguments {
                syn::PathArguments::AngleBracketed(list) => list.args.len(),
                _ => 0,
            };
            // Only the default hasher has these.
            let call = path.segments.get(at + 1).map(|next| next.ident.to_string());
            let made = matches!(call.as_deref(), Some("new" | "with_capacity" | "from"));
            if made || (given > 0 && given < with_hasher) {
                let line = segment.ident.span().start().line;
                self.0.push((segment.ident.to_string(), line));
            }
        }
        visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        calls(&[Source::parse(path, text)], &[]).len()
    }

    #[test]
    fn the_clock_threads_files_and_sockets_are_found() {
        for bad in [
            "use std::time::Instant;",
            "use std::time::{Duration, SystemTime};",
            "use std::time;",
            "use std::thread;",
            "fn f() { std::thread::sleep(d) }",
            "use std::{io, fs};",
            "use std::net::{SocketAddr, TcpStream};",
            "use std::os::unix::net::UnixStream;",
            "use tokio::net::TcpStream;",
            "#[tokio::main] async fn main() {}",
            "fn f() { g!(libc::getpid()) }",
        ] {
            assert_eq!(found("engine/log/src/a.rs", bad), 1, "{bad}");
        }
    }

    #[test]
    fn plain_types_own_modules_and_tests_may_stay() {
        for good in [
            "use std::time::Duration;",
            "use std::net::{IpAddr, SocketAddr};",
            "use std::io;",
            "mod tokio; use crate::transport::tokio::Connection;",
            "#[cfg(test)] mod tests { use std::fs; }",
        ] {
            assert_eq!(found("engine/log/src/a.rs", good), 0, "{good}");
        }
        assert_eq!(found("engine/log/src/a_test.rs", "use std::fs;"), 0);
        assert_eq!(found("engine/log/tests/a.rs", "use std::fs;"), 0);
    }

    #[test]
    fn a_listed_file_may_call_and_an_idle_listing_is_found() {
        let listed: Exceptions = &[("engine/cli/src/main.rs", "the binary's shell")];
        let caller = |text| [Source::parse("engine/cli/src/main.rs", text)];
        assert_eq!(calls(&caller("use std::fs;"), listed), []);
        assert_eq!(calls(&caller("use std::io;"), listed).len(), 1);
    }

    #[test]
    fn a_map_with_the_random_hasher_is_found() {
        let found = |text: &str| seedless(&Source::parse("engine/log/src/a.rs", text)).len();
        for bad in [
            "struct A { m: HashMap<u64, u8> }",
            "type A = std::collections::HashSet<u64>;",
            "fn f() { let m = HashMap::new(); }",
            "fn f() { HashSet::with_capacity(1) }",
            "fn f() { i.collect::<HashMap<_, _>>() }",
            "fn f() { std::hash::RandomState::new() }",
            "fn f() { rand::rng() }",
            "fn f() { uuid::Uuid::new_v4() }",
        ] {
            assert_eq!(found(bad), 1, "{bad}");
        }
        for good in [
            "use std::collections::HashMap;",
            "struct A { m: HashMap<u64, u8, FixedState> }",
            "fn f() { HashMap::with_hasher(h) }",
            "struct A { m: BTreeMap<u64, u8> }",
            "#[cfg(test)] mod tests { type A = HashMap<u8, u8>; }",
        ] {
            assert_eq!(found(good), 0, "{good}");
        }
        let elsewhere = Source::parse("xtask/src/a.rs", "type A = HashMap<u8, u8>;");
        assert_eq!(seedless(&elsewhere), []);
    }
}
