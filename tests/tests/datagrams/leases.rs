//! A host that gets its address while it is guarded, and would go dark without.

use std::{
    fs::{self, File},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassOutsideRange};
use guard_tests::{
    clients::Scratch,
    netns::{Direct, Namespace},
};

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
            .args([
                "--dhcp-range=fd09::100,fd09::1ff,slaac,64,2m",
                "--enable-ra",
            ])
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

/// dhclient, and its files.
struct Client(Child, Scratch);

impl Client {
    fn start(host: &Namespace) -> Result<Self> {
        let files = Scratch::new()?;
        let child = host
            .command("dhclient")
            .args(["-6", "-1", "-d", "-v", "-sf", "/bin/true"])
            .args(["-cf", "/dev/null", "-lf"])
            .arg(files.file("leases"))
            .arg("-pf")
            .arg(files.file("pid"))
            .arg("vg")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(files.file("said"))?)
            .spawn()
            .context("run dhclient")?;
        Ok(Self(child, files))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.1.file(name)).unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn d06_a_lease_of_an_ipv6_address_arrives() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        host.ip("-6 addr flush dev vg scope global")?;
        let guard = guard_tests::guard::Guard::start(host, "vg", &["--xdp-mode", mode])?;
        let _server = Server::start(peer)?;
        let client = Client::start(host)?;
        let deadline = Instant::now() + PATIENCE;
        while !client.read("leases").contains("iaaddr fd09::1") {
            let said = client.read("said");
            ensure!(Instant::now() < deadline, "{mode}: no lease: {said}");
            thread::sleep(Duration::from_millis(20));
        }
        let packets = guard.packets()?;
        // The advertisement and the reply.
        ensure!(packets.of(PassOutsideRange) >= 2, "{mode}:{packets}");
        ensure!(packets.of(DropNoFlow) == 0, "{mode}:{packets}");
    }
    Ok(())
}
