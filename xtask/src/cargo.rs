//! Nested cargo calls.

use std::env;
use std::ffi::{OsStr, OsString};
use std::process::Command;

use crate::workspace;

/// Settings of the user that a nested cargo must keep; every other `CARGO_*` variable describes
/// the build of xtask itself.
const KEPT: [&str; 8] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_INCREMENTAL",
    "CARGO_NET_",
    "CARGO_PROFILE_",
    "CARGO_REGISTR",
    "CARGO_TERM_",
    "CARGO_BUILD_JOBS",
];

/// What would make a build for another target use this machine's compiler, flags or libraries.
const FOREIGN: [&str; 6] = [
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
];

/// Where cargo keeps what it makes on the way to the target folder. Two checkouts that share it compile
/// what both of them depend on once.
pub const BUILD_FOLDER: &str = "CARGO_BUILD_BUILD_DIR";

/// The cargo that runs us, for the host's crates.
pub fn host(subcommand: &str) -> Command {
    let mut command = scrubbed(&program());
    command
        .arg(subcommand)
        .arg("--target-dir")
        .arg(workspace::target());
    lock(&mut command);
    command
}

/// The cargo that runs us, for what needs no target folder.
pub fn plain() -> Command {
    scrubbed(&program())
}

/// `program`, for crates with a compiler and a target folder of their own.
pub fn foreign(program: &OsStr) -> Command {
    let mut command = scrubbed(program);
    for name in FOREIGN {
        command.env_remove(name);
    }
    for (name, _) in env::vars_os().filter(|(name, _)| starts_with(name, "CARGO_PROFILE_")) {
        command.env_remove(name);
    }
    command
}

/// The path of the cargo that runs us.
pub fn program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// In CI a lock file that does not fit is an error, not something to repair silently.
pub fn lock(command: &mut Command) {
    if env::var_os("CI").is_some() {
        command.arg("--locked");
    }
}

fn scrubbed(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace::root());
    command.env_remove("RUSTC_WORKSPACE_WRAPPER");
    for (name, _) in env::vars_os() {
        let kept = KEPT.iter().any(|prefix| starts_with(&name, prefix));
        if starts_with(&name, "CARGO_") && !kept {
            command.env_remove(name);
        }
    }
    command
}

fn starts_with(name: &OsStr, prefix: &str) -> bool {
    name.as_encoded_bytes().starts_with(prefix.as_bytes())
}
