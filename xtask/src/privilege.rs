//! Root, for the few steps that need it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A command that runs `program` as root with `variables` set, through sudo only where needed.
pub fn as_root<V: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    variables: &[(&str, V)],
) -> Result<Command> {
    let program = program.as_ref();
    if is_root() {
        let mut command = Command::new(program);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        return Ok(command);
    }
    if process::find("sudo").is_none() {
        bail!(
            "{} needs root, and there is no sudo: run the same command as root",
            program.display()
        );
    }

    let mut command = Command::new("sudo");
    // sudo clears the environment, so `env` sets on its far side what has to arrive.
    if !variables.is_empty() {
        command.arg("env");
    }
    for (name, value) in variables {
        let mut assignment = OsStr::new(name).to_os_string();
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    Ok(command)
}

/// Whether root can be had at all.
pub fn obtainable() -> bool {
    is_root() || process::find("sudo").is_some()
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
