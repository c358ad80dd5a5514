//! What the daemon takes of the host's memory.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{guard::Guard, netns::Direct};

use crate::PATIENCE;

/// Resident memory of a daemon that guards and does nothing else at the moment, in kB.
const MOST: u64 = 12 << 10;
/// The most that it may take on the way there, in kB. A start that reads the kernel's own types
/// takes 25 MB.
const MOST_EVER: u64 = 16 << 10;

#[test]
fn a_start_takes_little_memory() -> Result<()> {
    let hosts = Direct::new()?;
    let guard = Guard::start(&hosts.guarded, hosts.interface(), &[])?;
    let path = format!("/proc/{}/status", guard.pid());
    let read = |name: &str| -> Result<u64> {
        let status = fs::read_to_string(&path).context(path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.with_context(|| name.to_owned())?.parse()?)
    };

    let deadline = Instant::now() + PATIENCE;
    let mut now = read("VmRSS:")?;
    // A sweep takes more for as long as it lasts.
    while now > MOST {
        ensure!(Instant::now() < deadline, "{now} kB are resident");
        thread::sleep(Duration::from_millis(20));
        now = read("VmRSS:")?;
    }
    let ever = read("VmHWM:")?;
    println!("{now} kB now, {ever} kB at most");
    ensure!(ever <= MOST_EVER, "{ever} kB were resident");
    Ok(())
}
