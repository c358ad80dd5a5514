//! What the host sends is remembered however it is sent (rows R01 to R08, trap E2).

mod inbound;
mod offload;
mod raw;
mod ring;
mod tunnel;

use std::{io, net::IpAddr, os::fd::AsRawFd};

use anyhow::Result;
use guard_common::outcome::{Family, Outcome, Verdict};
use guard_tests::{frames::End, guard::Guard, metrics::Packets};

const MODES: [&str; 2] = ["native", "generic"];
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

fn address(end: &End, family: Family) -> IpAddr {
    match family {
        Family::Ipv6 => end.ipv6.into(),
        Family::Ipv4 | Family::Other => end.ipv4.into(),
    }
}

/// The flows that the guard knows.
fn live_flows(guard: &Guard<'_>) -> Result<u64> {
    let samples = guard.scrape()?;
    let flows = samples
        .iter()
        .filter(|sample| sample.name == "portguard_flows");
    Ok(flows.map(|sample| sample.value as u64).sum())
}

fn dropped(packets: &Packets) -> u64 {
    Outcome::ALL
        .iter()
        .filter(|outcome| outcome.verdict() == Verdict::Drop)
        .map(|outcome| packets.of(*outcome))
        .sum()
}

fn set<T>(socket: &impl AsRawFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value is as long as the call is told.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const *value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
