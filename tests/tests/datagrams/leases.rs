//! A host that gets its address while it is guarded, and would go dark without.

use std::{
    fs,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassOutsideRange};
use guard_tests::netns::{Direct, Namespace};

use super::MODES;

const PATIENCE: Duration = Duration::from_secs(8);

/// dnsmasq on the peer, and its file of leases.
struct Server(Child, std::path::PathBuf);

impl Server {
    fn start(peer: &Namespace) -> Result<Self> {
        let leases = std::env::temp_dir().join(format!("{}.leases", peer.name()));
        let child = peer
            .command("dnsmasq")
            .args([
                "--no-daemon",
                "--conf-file=/dev/null",
                "--port=0",
                "--user=root",
            ])
            .args(["--interface=vp", "--bind-interfaces", "--no-ping"])
            .arg("--dhcp-range=10.9.0.100,10.9.0.150,255.255.255.0,2m")
            .args(["--dhcp-range=fd09::,ra-only,64", "--enable-ra"])
            .args(["--ra-param=vp,4", "--dhcp-authoritative", "--pid-file="])
            .arg(format!("--dhcp-leasefile={}", leases.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("run dnsmasq")?;
        Ok(Self(child, leases))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_file(&self.1);
    }
}

#[test]
fn d06_a_lease_and_a_router_advertisement_arrive() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        host.ip("addr flush dev vg scope global")?;
        host.sysctl("net/ipv6/conf/vg/accept_ra", "1")?;
        let guard = guard_tests::guard::Guard::start(host, "vg", &["--xdp-mode", mode])?;
        let _server = Server::start(peer)?;
        let asked = host
            .command("busybox")
            .args(["udhcpc", "-i", "vg", "-n", "-q", "-f", "-t", "8", "-T", "1"])
            .args(["-s", "/bin/true"])
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&asked.stderr).into_owned();
        ensure!(
            asked.status.success() && said.contains("obtained"),
            "{mode}: no lease: {said}"
        );
        let packets = guard.packets()?;
        // The offer and the acknowledgment.
        ensure!(packets.of(PassOutsideRange) >= 2, "{mode}:{packets}");
        ensure!(packets.of(DropNoFlow) == 0, "{mode}:{packets}");

        let deadline = Instant::now() + PATIENCE;
        while !host.run(|| {
            fs::read_to_string("/proc/thread-self/net/if_inet6")
                .is_ok_and(|addresses| addresses.contains("fd090000000000000"))
        }) {
            ensure!(Instant::now() < deadline, "{mode}: no address by RA");
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}
