//! A host that gets its address while it is guarded, and would go dark without.

use std::{
    fs::{self, File},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{self, DropNoFlow, PassKnownFlow, PassNewFlow, PassOutsideRange, PassRefreshedFlow},
};
use guard_tests::{
    frames::{EVERYBODY, End, FAR, G, NOBODY, P, tcp, udp},
    netns::{Direct, Namespace},
    scratch::Scratch,
    wire::Wire,
};

use super::MODES;

const PATIENCE: Duration = Duration::from_secs(8);

/// The flags of a guard, and what it makes of a server's packets: the client's port may be in the
/// range, so that nothing but its request lets them in.
const RANGES: [(&[&str], Outcome); 2] = [
    (&[], PassOutsideRange),
    (
        &["--range", "1-65535", "--listeners", "warn"],
        PassKnownFlow,
    ),
];

/// Every mode with each of the ranges.
fn guards() -> impl Iterator<Item = (Vec<&'static str>, Outcome)> {
    MODES.into_iter().flat_map(|mode| {
        RANGES.map(|(flags, outcome)| ([&["--xdp-mode", mode], flags].concat(), outcome))
    })
}

/// dnsmasq on the peer, and its file of leases.
struct Server {
    child: Child,
    _files: Scratch,
}

impl Server {
    fn start(peer: &Namespace) -> Result<Self> {
        let files = Scratch::new()?;
        let leases = files.file("leases");
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
        Ok(Self {
            child,
            _files: files,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn d06_a_lease_and_a_router_advertisement_arrive() -> Result<()> {
    for (flags, passes) in guards() {
        let topology = Direct::new()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        host.ip("addr flush dev vg scope global")?;
        host.sysctl("net/ipv6/conf/vg/accept_ra", "1")?;
        let guard = guard_tests::guard::Guard::start(host, "vg", &flags)?;
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
            "{flags:?}: no lease: {said}"
        );
        let packets = guard.packets()?;
        // The offer and the acknowledgment.
        ensure!(packets.of(passes) >= 2, "{flags:?}:{packets}");
        ensure!(packets.of(DropNoFlow) == 0, "{flags:?}:{packets}");

        let deadline = Instant::now() + PATIENCE;
        while !host.run(|| {
            fs::read_to_string("/proc/thread-self/net/if_inet6")
                .is_ok_and(|addresses| addresses.contains("fd090000000000000"))
        }) {
            ensure!(Instant::now() < deadline, "{flags:?}: no address by RA");
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
    for (flags, passes) in guards() {
        let topology = Direct::new()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        host.ip("-6 addr flush dev vg scope global")?;
        let guard = guard_tests::guard::Guard::start(host, "vg", &flags)?;
        let _server = Server::start(peer)?;
        let client = Client::start(host)?;
        let deadline = Instant::now() + PATIENCE;
        while !client.read("leases").contains("iaaddr fd09::1") {
            let said = client.read("said");
            ensure!(Instant::now() < deadline, "{flags:?}: no lease: {said}");
            thread::sleep(Duration::from_millis(20));
        }
        let packets = guard.packets()?;
        // The advertisement and the reply.
        ensure!(packets.of(passes) >= 2, "{flags:?}:{packets}");
        ensure!(packets.of(DropNoFlow) == 0, "{flags:?}:{packets}");
    }
    Ok(())
}

/// A server may be behind a relay, and answers to an address that the host has not, or to all of them;
/// nobody else does, and nobody too late.
#[test]
fn d06_any_server_answers_a_request_while_it_is_fresh() -> Result<()> {
    let offered = End {
        ipv4: std::net::Ipv4Addr::new(10, 9, 0, 77),
        ..G
    };
    for mode in MODES {
        let topology = Direct::new()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        let own = Wire::open(host, topology.interface())?;
        let wire = Wire::open(peer, topology.peer_interface())?;
        let flags = ["--xdp-mode", mode, "--range", "1-65535"];
        let flags = [&flags[..], &["--timeout", "multicast=2"]].concat();
        let flags = [&flags[..], &["--listeners", "warn"]].concat();
        let guard = guard_tests::guard::Guard::start(host, "vg", &flags)?;
        let answers = [P, FAR]
            .into_iter()
            .flat_map(|server| [G, offered, EVERYBODY].map(|end| udp(67, 68).from(server).to(end)));
        let answers: Vec<_> = answers.map(|frame| frame.received(Family::Ipv4)).collect();
        let send = || answers.iter().try_for_each(|frame| wire.send(frame));
        guard.expect([(DropNoFlow, 6)], send)?;
        let asks = [(NOBODY, PassNewFlow), (G, PassRefreshedFlow)];
        for (asks, outcome) in asks {
            let asks = udp(68, 67).from(End { mac: G.mac, ..asks }).to(EVERYBODY);
            guard.expect([(outcome, 1)], || own.send(&asks.sent(Family::Ipv4)))?;
            guard.expect([(PassKnownFlow, 6)], send)?;
        }
        for other in [udp(66, 68), udp(67, 69), tcp(67, 68)] {
            let other = other.from(FAR).to(offered).received(Family::Ipv4);
            guard.expect([(DropNoFlow, 1)], || wire.send(&other))?;
        }
        thread::sleep(Duration::from_millis(3_000));
        guard.expect([(DropNoFlow, 6)], send)?;
    }
    Ok(())
}
