//! What the kernel itself says is attached.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use guard_tests::netns::Namespace;

/// The id of the XDP program on an interface.
pub fn xdp(host: &Namespace, interface: &str) -> Result<Option<u32>> {
    let shown = output(Command::new("ip").args([
        "-n",
        host.name(),
        "-details",
        "link",
        "show",
        "dev",
        interface,
    ]))?;
    let Some((_, after)) = shown.split_once("prog/xdp id ") else {
        return Ok(None);
    };
    let id = after.split_whitespace().next().context("an id")?;
    Ok(Some(id.parse()?))
}

/// How many programs see what leaves by an interface.
pub fn egress(host: &Namespace, interface: &str) -> Result<usize> {
    // An older kernel knows no such question, and has no such programs.
    let tcx = host
        .run(|| SchedClassifier::query_tcx(interface, TcAttachType::Egress))
        .map_or(0, |(_, programs)| programs.len());
    let shown = output(Command::new("tc").args([
        "-n",
        host.name(),
        "filter",
        "show",
        "dev",
        interface,
        "egress",
    ]))?;
    Ok(tcx + shown.matches("handle 0x").count())
}

/// Whether a program of this id is loaded, attached or not.
pub fn loaded(id: u32) -> bool {
    loaded_programs()
        .filter_map(Result::ok)
        .any(|program| program.id() == id)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
