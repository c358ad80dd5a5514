//! Packets that the interface receives and the XDP program does not see.

use anyhow::{Result, ensure};
use guard_tests::{
    guard::Guard,
    kernel::Kernel,
    metrics,
    neighbour::{Program, add_filter},
    netns::{Direct, Namespace, link},
    wire::{Listener, QUIET, Wire},
};

use super::{FAMILIES, OVER, PORT, PROMISED, health, send_until, status, strange, unseen};

/// A third host, whose packets another program brings to the guarded one.
struct Detour {
    topology: Direct,
    unsolicited: Namespace,
}

/// How its packets are brought there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// By `bpf_redirect_peer`, past the program in the driver.
    Peer,
    /// By the action mirred, which generic XDP leaves alone: `netif_receive_generic_xdp` takes no
    /// packet that `skb_is_redirected`.
    Mirred,
}

impl Detour {
    fn new(way: Way) -> Result<Self> {
        let topology = Direct::new()?;
        let unsolicited = Namespace::new("s")?;
        let peer = &topology.peer;
        link((&unsolicited, "ss"), (peer, "sp"))?;
        match way {
            Way::Peer => {
                let index = peer.run(|| index_of(topology.peer_interface()))?;
                Program::redirecting_to_peer(index)?.add_filter(
                    peer,
                    ("sp", "ingress"),
                    "prio 1",
                )?;
            }
            Way::Mirred => {
                let mirred = "prio 1 protocol all u32 match u32 0 0 action mirred egress redirect";
                let interface = topology.peer_interface();
                add_filter(
                    peer,
                    ("sp", "ingress"),
                    &format!("{mirred} dev {interface}"),
                )?;
            }
        }

        Ok(Self {
            topology,
            unsolicited,
        })
    }
}

fn index_of(interface: &str) -> Result<u32> {
    let path = format!("/proc/thread-self/net/dev_snmp6/{interface}");
    let text = std::fs::read_to_string(path)?;
    let index = text.split_whitespace().nth(1).unwrap_or_default();
    Ok(index.parse()?)
}

/// The guard starts in a mode in which its program sees nothing, says so, and goes over to the other.
fn is_found_and_cured(way: Way, mode: &str, other: &str) -> Result<()> {
    let detour = Detour::new(way)?;
    let host = &detour.topology.guarded;
    let listener = Listener::new(host, PORT)?;
    let wire = Wire::open(&detour.unsolicited, "ss")?;
    let unsolicited = || {
        FAMILIES
            .iter()
            .try_for_each(|family| strange(&wire, *family))
    };
    unsolicited()?;
    ensure!(listener.delivered(QUIET) == 2, "unheard without a guard");

    let guard = Guard::start(host, "vg", &["--xdp-mode", mode])?;
    unsolicited()?;
    ensure!(
        listener.delivered(QUIET) == 2,
        "{mode}: the program sees them"
    );
    let said = status(host, &guard)?;
    ensure!(said.contains("vg: received none yet"), "{mode}: {said}");

    let found = send_until(503, PROMISED, host, |family| strange(&wire, family))?;
    println!("{way:?}, {mode}: found after {found:?}");
    let said = guard.said();
    ensure!(
        said.contains(&format!("the XDP program ({mode} mode) sees none")),
        "{mode}: {said}"
    );
    let cured = send_until(200, OVER, host, |family| strange(&wire, family))?;
    println!("{way:?}, {mode}: over after {cured:?}");
    listener.delivered(QUIET);
    unsolicited()?;
    ensure!(
        listener.delivered(QUIET) == 0,
        "{mode}: unsolicited packets are delivered"
    );
    let samples = guard.scrape()?;
    ensure!(unseen(&samples, "xdp") >= 50, "{mode}: not counted");
    let labels = [("device", "vg"), ("mode", other)];
    let shown = metrics::sum(&samples, "portguard_xdp_mode_info", &labels);
    ensure!(shown == 1, "{mode}: not in {other} mode");
    let said = status(host, &guard)?;
    ensure!(said.contains("vg: received seen"), "{mode}: {said}");
    ensure!(said.contains(&format!("{other} XDP")), "{mode}: {said}");
    ensure!(!said.contains("ALARM"), "{mode}: {said}");
    ensure!(health(host)? == 200, "{mode}: unwell");
    ensure!(guard.stop()?.success(), "{mode}: a bad end");
    Ok(())
}

#[test]
fn h11_what_passes_by_the_driver_is_found_and_generic_mode_taken() -> Result<()> {
    // Before, the interface did not count them:
    // https://github.com/torvalds/linux/commit/024ee930cb3c
    if Kernel::new(6, 7).is_missing("statistics of packets that redirect_peer brings") {
        return Ok(());
    }
    is_found_and_cured(Way::Peer, "native", "generic")
}

#[test]
fn h11_what_passes_by_generic_mode_is_found_and_the_driver_taken() -> Result<()> {
    is_found_and_cured(Way::Mirred, "generic", "native")
}
