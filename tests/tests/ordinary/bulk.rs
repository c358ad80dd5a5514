//! N03, N14: as much as the link takes, plain and in a tunnel.

use std::{fs, io};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{
    PassExempt, PassKnownFlow, PassNotRecorded, PassOutsideRange,
};
use guard_tests::{
    clients::{Protocol, Server, kernel_counter, moves, run},
    frames::{G, P},
    netns::{Direct, Namespace},
};

use crate::{MODES, PEERS, guarded};

const PORT: u16 = 5201;
/// Of datagrams at a rate that the link can take.
const DATAGRAMS: &str = "-u -b 200M -n 10M";

fn iperf_server(host: &Namespace) -> Result<Server> {
    Server::start(host, "iperf3 -s")?.listening(host, Protocol::Tcp, PORT)
}

/// Datagrams that were lost, and all of them, by the line of the receiver.
fn lost(report: &str) -> Option<(u64, u64)> {
    let mut lines = report.lines().map(str::trim_end);
    let line = lines.rfind(|line| line.ends_with("receiver"))?;
    let numbers = |word: &str| {
        let (lost, all) = word.split_once('/')?;
        Some((lost.parse().ok()?, all.parse().ok()?))
    };
    line.split_whitespace().find_map(numbers)
}

/// Frames and datagrams that both hosts themselves had no room for.
fn overflown(topology: &Direct) -> Result<u64> {
    let of = |host: &Namespace| -> Result<u64> {
        let (socket, devices) = host.run(|| {
            let read = |table| fs::read_to_string(format!("/proc/thread-self/net/{table}"));
            Ok::<_, io::Error>((read("snmp6")?, read("dev")?))
        })?;
        let socket = socket
            .lines()
            .find_map(|line| line.strip_prefix("Udp6RcvbufErrors"))
            .context("no Udp6RcvbufErrors")?;
        let devices = devices.lines().filter_map(|line| line.split_once(':'));
        let dropped =
            devices.flat_map(|(_, numbers)| numbers.split_whitespace().skip(3).step_by(8));
        let dropped = dropped.filter_map(|number| number.parse::<u64>().ok());
        Ok(socket.trim().parse::<u64>()?
            + dropped.sum::<u64>()
            + kernel_counter(host, "snmp", "Udp", "RcvbufErrors")?)
    };
    Ok(of(&topology.guarded)? + of(&topology.peer)?)
}

fn n03_bulk(mode: &str) -> Result<()> {
    let topology = Direct::new()?;
    let _server = iperf_server(&topology.peer)?;
    let guard = guarded(&topology, mode, &[])?;
    for peer in PEERS {
        for how in ["-n 100M", "-n 100M -R", "-n 100M -P 4", "-n 100M -P 4 -R"] {
            let line = format!("iperf3 -c {peer} {how}");
            moves(&guard, &[PassKnownFlow], &[], || {
                run(&topology.guarded, &line)
            })
            .with_context(|| format!("N03, {mode}, {line}"))?;
        }
        for how in [DATAGRAMS.to_owned(), format!("{DATAGRAMS} -R")] {
            let line = format!("iperf3 -c {peer} {how}");
            let before = overflown(&topology)?;
            let report = moves(&guard, &[PassKnownFlow], &[], || {
                run(&topology.guarded, &line)
            })
            .with_context(|| format!("N03, {mode}, {line}"))?;
            let (lost, all) = lost(&report).context("iperf3 counts datagrams")?;
            // What has no room while others have the processor is lost on any host.
            let excused = overflown(&topology)? - before;
            ensure!(
                all > 5000 && lost <= excused + all / 1000,
                "N03, {mode}, {line}: {lost} of {all} lost, {excused} of them for want of room"
            );
        }
    }
    Ok(())
}

#[test]
fn n03_streams_and_datagrams_cross_a_native_guard() -> Result<()> {
    n03_bulk("native")
}

#[test]
fn n03_streams_and_datagrams_cross_a_generic_guard() -> Result<()> {
    n03_bulk("generic")
}

/// A tunnel between both hosts, with 192.0.2.2 and 192.0.2.1 inside.
fn tunnel(topology: &Direct, outside: [(&str, &str); 2]) -> Result<()> {
    let hosts = [
        (&topology.guarded, topology.interface(), 2),
        (&topology.peer, topology.peer_interface(), 1),
    ];
    for ((host, interface, number), (local, remote)) in hosts.into_iter().zip(outside) {
        host.ip(&format!(
            "link add vx type vxlan id 5 dstport 4789 local {local} remote {remote} dev {interface}"
        ))?;
        host.ip(&format!("addr add 192.0.2.{number}/24 dev vx"))?;
        host.ip("link set vx up")?;
    }
    Ok(())
}

#[test]
fn n14_a_tunnel_carries_traffic_both_ways() -> Result<()> {
    let (g4, p4, g6, p6) = (G.ipv4, P.ipv4, G.ipv6, P.ipv6);
    let (g4, p4, g6, p6) = (
        g4.to_string(),
        p4.to_string(),
        g6.to_string(),
        p6.to_string(),
    );
    for mode in MODES {
        for ends in [[(&*g4, &*p4), (&p4, &g4)], [(&*g6, &*p6), (&p6, &g6)]] {
            // The tunnel's port is guarded in the wider range, where a socket of the kernel's own
            // keeps it open.
            for (range, due) in [
                ("32768 60999", PassOutsideRange),
                ("1024 65535", PassExempt),
            ] {
                let topology = Direct::new()?;
                topology
                    .guarded
                    .sysctl("net/ipv4/ip_local_port_range", range)?;
                tunnel(&topology, ends)?;
                let _server = iperf_server(&topology.peer)?;
                let guard = guarded(&topology, mode, &[])?;
                for how in ["", "-R"] {
                    let line = format!("iperf3 -c 192.0.2.1 -n 20M {how}");
                    moves(&guard, &[due, PassNotRecorded], &[], || {
                        run(&topology.guarded, &line)
                    })
                    .with_context(|| format!("N14, {mode}, {ends:?}, {range}, {line}"))?;
                }
            }
        }
    }
    Ok(())
}
