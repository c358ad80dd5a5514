//! Path MTU discovery: an upload through a narrow link stalls unless the router is heard.

use std::{fs, net::UdpSocket, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{Outcome, Verdict};
use guard_tests::{
    build,
    guard::Guard,
    netns::{Namespace, Routed},
};

use super::{
    MODES,
    kernel::{forget_paths, has_small_path},
    output,
    sink::Sink,
};

/// The server, and the host in a URL.
const SERVERS: [(&str, &str); 2] = [("10.8.0.1", "10.8.0.1"), ("fd08::1", "[fd08::1]")];
/// How the router is silenced.
const SILENCE: &str = "add table inet hush; \
     add chain inet hush out { type filter hook output priority 0; }; \
     add rule inet hush out icmp type destination-unreachable drop; \
     add rule inet hush out icmpv6 type packet-too-big drop";

#[test]
fn i01_uploads_cross_a_narrow_link() -> Result<()> {
    let length = fs::metadata(build::binary())?.len().to_string();
    let topology = Routed::new(1280)?;
    let host = &topology.guarded;
    let _sink = Sink::new(&topology.peer)?;

    nft(&topology.router, SILENCE)?;
    for (_, url) in SERVERS {
        let (done, said) = upload(host, url, "1")?;
        ensure!(!done, "{url}: needs nothing from the router: {said}");
    }
    nft(&topology.router, "delete table inet hush")?;
    for (address, url) in SERVERS {
        let (done, said) = upload(host, url, "5")?;
        ensure!(done && said == length, "{url}, without a guard: {said}");
        ensure!(
            has_small_path(host, address)?,
            "{url}: no word from the router"
        );
    }

    for mode in MODES {
        let guard = Guard::start(host, "vg", &["--xdp-mode", mode])?;
        for (address, url) in SERVERS {
            forget_paths(host)?;
            ensure!(
                !has_small_path(host, address)?,
                "{url}: nothing is forgotten"
            );
            let before = guard.packets()?;
            let (done, said) = upload(host, url, "5")?;
            ensure!(done && said == length, "{mode}, {url}: {said}");
            ensure!(
                has_small_path(host, address)?,
                "{mode}, {url}: no word from the router"
            );
            let moved = guard.packets()?.since(&before);
            ensure!(
                moved.of(Outcome::PassIcmpRelated) >= 1,
                "{mode}, {url}:{moved}"
            );
            let dropped = Outcome::ALL
                .iter()
                .filter(|outcome| outcome.verdict() == Verdict::Drop)
                .map(|outcome| moved.of(*outcome))
                .sum::<u64>();
            ensure!(dropped == 0, "{mode}, {url}:{moved}");
        }
        ensure!(guard.stop()?.success(), "the daemon ends well");
    }
    Ok(())
}

/// VXLAN takes a source port of the range for each flow inside, of which nothing is recorded.
#[test]
fn tunnels_hear_of_narrow_paths() -> Result<()> {
    for (device, remote, more) in [
        ("vx4", "10.8.0.1", "df set"),
        ("vx6", "fd08::1", "udp6zerocsumtx"),
    ] {
        for mode in [None, Some("native"), Some("generic")] {
            let topology = Routed::new(1280)?;
            let host = &topology.guarded;
            host.ip(&format!(
                "link add {device} type vxlan id 5 dstport 4789 remote {remote} dev vg {more}"
            ))?;
            for command in [
                format!("link set {device} mtu 1430 up"),
                format!("addr add 192.0.2.2/24 dev {device}"),
                format!("neigh add 192.0.2.1 lladdr 02:00:00:00:05:01 dev {device}"),
            ] {
                host.ip(&command)?;
            }
            let guard = mode
                .map(|mode| Guard::start(host, "vg", &["--xdp-mode", mode]))
                .transpose()?;
            host.run(|| -> Result<()> {
                let socket = UdpSocket::bind("192.0.2.2:0")?;
                for port in 1..=4 {
                    socket.send_to(&[0; 1380], ("192.0.2.1", port))?;
                    thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            })?;
            ensure!(
                has_small_path(host, remote)?,
                "{mode:?}, {remote}: a black hole"
            );
            if let Some(guard) = guard {
                let packets = guard.packets()?;
                ensure!(
                    packets.of(Outcome::PassIcmpOutside) >= 1,
                    "{mode:?}:{packets}"
                );
                ensure!(
                    packets.of(Outcome::DropIcmpUnrelated) == 0,
                    "{mode:?}:{packets}"
                );
            }
        }
    }
    Ok(())
}

fn upload(host: &Namespace, url: &str, seconds: &str) -> Result<(bool, String)> {
    let file = build::binary();
    let file = file.to_str().context("a path in UTF-8")?;
    Ok(output(
        host,
        &format!("curl -sS -f -g --noproxy * --max-time {seconds} -T {file} http://{url}/"),
    )?)
}

fn nft(router: &Namespace, rules: &str) -> Result<()> {
    let output = router.command("nft").arg(rules).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft: {said}");
    Ok(())
}
