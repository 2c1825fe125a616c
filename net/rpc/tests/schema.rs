//! The code that is generated from the schemas, and that it is of these schemas.
//!
//! A build needs no compiler of schemas: what `capnpc` makes of them is committed beside them. Where
//! the program `capnp` is installed, it is made anew and compared; where it is not, the schema's
//! checksum in the code's head tells whether it has changed since. To make it anew:
//! `SCHEMA=write cargo test -p ringmill-rpc --test schema`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SCHEMAS: [&str; 2] = ["names", "counter"];
const REMEDY: &str = "SCHEMA=write cargo test -p ringmill-rpc --test schema";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schema")
}

fn committed(name: &str) -> PathBuf {
    folder().join(format!("{name}_capnp.rs.in"))
}

/// FNV-1a of a schema's text.
fn checksum(name: &str) -> String {
    let text = fs::read(folder().join(format!("{name}.capnp"))).unwrap();
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("// schema: {name}.capnp, FNV-1a {hash:016x}\n")
}

fn has_compiler() -> bool {
    let asked = Command::new("capnp").arg("--version").output();
    asked.is_ok_and(|output| output.status.success())
}

/// The code of a schema, without the versions of the programs that made it.
fn generated(name: &str) -> String {
    let out = std::env::temp_dir().join(format!("ringmill-schema-{}-{name}", std::process::id()));
    fs::create_dir_all(&out).unwrap();
    let made = capnpc::CompilerCommand::new()
        .src_prefix(folder())
        .file(folder().join(format!("{name}.capnp")))
        .default_parent_module(vec!["objects".into()])
        .output_path(&out)
        .run();
    let code = fs::read_to_string(out.join(format!("{name}_capnp.rs")));
    fs::remove_dir_all(&out).unwrap();
    made.unwrap();
    let code = code.unwrap();
    let kept = code.lines().filter(|line| !line.contains(" version: "));
    kept.fold(checksum(name), |text, line| text + line + "\n")
}

#[test]
fn the_code_is_of_these_schemas() {
    for name in SCHEMAS {
        let code = fs::read_to_string(committed(name)).unwrap_or_default();
        let head = code.lines().next().unwrap_or_default();
        let stale = format!("{name}.capnp was changed: {REMEDY}");
        let writes = std::env::var("SCHEMA").is_ok_and(|value| value == "write");
        assert!(writes || format!("{head}\n") == checksum(name), "{stale}");
    }
}

#[test]
fn the_code_is_what_the_compiler_makes() {
    if !has_compiler() {
        println!("capnp is not installed: nothing to compare with");
        return;
    }
    let write = std::env::var("SCHEMA").is_ok_and(|value| value == "write");
    for name in SCHEMAS {
        let code = generated(name);
        assert!(!code.contains("unsafe"), "{name}");
        if write {
            fs::write(committed(name), &code).unwrap();
        }
        let held = fs::read_to_string(committed(name)).unwrap_or_default();
        assert!(held == code, "{name}_capnp.rs.in is stale: {REMEDY}");
    }
}
