//! What the guard tells the world is true, and telling it costs little (rows M02 and M04).

mod documented;
mod examples;
mod flows;
mod prometheus;
mod scraped;

use anyhow::Result;
use guard_tests::netns::Direct;

/// Makes the peer a wire's end: it says nothing, whatever it hears.
fn hush(topology: &Direct) -> Result<()> {
    topology.peer.sysctl("net/ipv6/conf/vp/disable_ipv6", "1")?;
    topology.peer.ip("addr flush dev vp")
}
