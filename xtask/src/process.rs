//! Starting other programs: each is printed before it runs, reads nothing from stdin, and its
//! failure is one line.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Why a chore failed, in one line that says what to do where we know it.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure(error.to_string())
    }
}

/// The workspace's root folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace's root")
}

/// Where build output and everything downloaded goes: never committed.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The cargo that started us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The command as one would type it, with the environment it sets.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!(
                "{}={}",
                name.to_string_lossy(),
                quoted(&value.to_string_lossy())
            ));
        }
    }
    let program = command.get_program().to_string_lossy();
    // The toolchain's own path to cargo says less than its name.
    let program = if program.ends_with("/bin/cargo") {
        "cargo".into()
    } else {
        program
    };
    words.push(quoted(&program));
    words.extend(command.get_args().map(|arg| quoted(&arg.to_string_lossy())));
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Prints the command, runs it in the workspace's root to its end, fails unless it exits 0.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let line = shown(command);
    println!("$ {line}");
    let status = command
        .current_dir(root())
        .stdin(Stdio::null())
        .status()
        .map_err(|error| Failure(format!("cannot start `{line}`: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure(format!("`{line}` failed: {status}")))
    }
}

/// As [`run`], but killed and failed past `limit`: nothing may hang the continuous check.
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> Result<(), Failure> {
    let line = shown(command);
    println!("$ {line}");
    let mut child = command
        .current_dir(root())
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| Failure(format!("cannot start `{line}`: {error}")))?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return match status.success() {
                true => Ok(()),
                false => Err(Failure(format!("`{line}` failed: {status}"))),
            };
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(Failure(format!("`{line}` still ran after {limit:?}")));
        }
        sleep(Duration::from_millis(50));
    }
}

/// Whether the command can be started and exits 0; prints nothing.
pub(crate) fn succeeds(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Installs Debian packages, as root or by sudo; where neither is possible the error says what
/// to install by hand.
pub(crate) fn apt_install(packages: &[&str]) -> Result<(), Failure> {
    let by_hand = format!("install by hand: apt-get install {}", packages.join(" "));
    if !succeeds("apt-get", &["--version"]) {
        return Err(Failure(by_hand));
    }
    let apt = |args: &[&str]| {
        let mut command = if succeeds("sh", &["-c", "test $(id -u) = 0"]) {
            Command::new("apt-get")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "apt-get"]);
            sudo
        };
        command.env("DEBIAN_FRONTEND", "noninteractive").args(args);
        run(&mut command).map_err(|failure| Failure(format!("{failure}; {by_hand}")))
    };
    apt(&["update", "-q"])?;
    let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
    install.extend(packages);
    apt(&install)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_typed_again() {
        let mut command = Command::new("kcat");
        command.env("A", "1").args(["-f", "%p %s\n", "it's"]);
        assert_eq!(shown(&command), "A=1 kcat -f '%p %s\n' 'it'\\''s'");
    }

    #[test]
    fn a_failing_program_fails_the_chore() {
        assert!(run(&mut Command::new("false")).is_err());
        assert!(run(&mut Command::new("/nonexistent/program")).is_err());
        assert!(run(&mut Command::new("true")).is_ok());
    }

    #[test]
    fn a_hanging_program_is_killed_and_fails() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let failure = run_within(Duration::from_millis(100), &mut command).unwrap_err();
        assert!(failure.0.contains("still ran"), "{failure}");
    }
}
