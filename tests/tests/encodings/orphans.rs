//! Refused fragments must not starve the reassembly of this host's own answers (trap A19).

use std::fs;

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropFragmentDenied, DropNoFlow, PassKnownFlow, PassLaterFragment, PassNewFlow},
};
use guard_tests::{
    frames::{FAR, Frame, N, P, udp},
    guard::Guard,
    netns::{Direct, Namespace},
    wire::{Listener, QUIET, Wire},
};

use super::MODES;

/// Datagrams in pieces that nobody asked for.
const DATAGRAMS: u16 = 3_000;
/// Bytes of each piece but the last.
const PIECE: usize = 1_400;

#[test]
fn a19_refused_fragments_leave_no_orphans() -> Result<()> {
    for mode in MODES {
        for family in [Family::Ipv4, Family::Ipv6] {
            starve(mode, family).with_context(|| format!("{mode}, {family:?}"))?;
        }
    }
    Ok(())
}

fn starve(mode: &str, family: Family) -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let listener = Listener::new(host, 40_000)?;
    let _server = Listener::new(&topology.peer, 53)?;
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;
    let datagram = || udp(53, 40_000).data(&[0x5a; 2 * PIECE]);

    for piece in pieces(&datagram(), 1) {
        wire.send(&piece.received(family))?;
    }
    let delivered = listener.delivered(QUIET);
    ensure!(delivered == 1, "{delivered} delivered without a guard");

    let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
    let number = u64::from(DATAGRAMS);
    let flood = || {
        (0..DATAGRAMS).try_for_each(|id| {
            pieces(&datagram().from(FAR), id)
                .iter()
                .try_for_each(|piece| wire.send(&piece.received(family)))
        })
    };
    guard.expect(
        [(DropNoFlow, number), (DropFragmentDenied, 2 * number)],
        flood,
    )?;
    let waiting = waiting(host, family)?;
    ensure!(waiting == 0, "{waiting} orphans wait for their first piece");

    guard.expect([(PassNewFlow, 1)], || {
        let peer: std::net::IpAddr = match family {
            Family::Ipv6 => P.ipv6.into(),
            Family::Ipv4 | Family::Other => P.ipv4.to_ipv6_mapped().into(),
        };
        listener.socket().send_to(b"query", (peer, 53))?;
        Ok(())
    })?;
    guard.expect([(PassKnownFlow, 1), (PassLaterFragment, 2)], || {
        pieces(&datagram(), 9)
            .iter()
            .rev()
            .try_for_each(|piece| wire.send(&piece.received(family)))
    })?;
    let delivered = listener.delivered(QUIET);
    ensure!(delivered == 1, "{delivered} answers in pieces delivered");

    // What the pool shows where nothing was refused before: the measure can move.
    guard.expect([(PassLaterFragment, 20)], || {
        (0..20).try_for_each(|id| wire.send(&pieces(&datagram().from(N), id)[1].received(family)))
    })?;
    let waiting = self::waiting(host, family)?;
    ensure!(waiting == 20, "{waiting} orphans wait, not 20");
    Ok(())
}

fn pieces(datagram: &Frame, id: u16) -> [Frame; 3] {
    [
        datagram.clone().piece(id, ..PIECE),
        datagram.clone().piece(id, PIECE..2 * PIECE),
        datagram.clone().piece(id, 2 * PIECE..),
    ]
}

/// Datagrams that the kernel holds pieces of.
fn waiting(host: &Namespace, family: Family) -> Result<u64> {
    let (file, line) = match family {
        Family::Ipv6 => ("sockstat6", "FRAG6: inuse "),
        Family::Ipv4 | Family::Other => ("sockstat", "FRAG: inuse "),
    };
    let path = format!("/proc/thread-self/net/{file}");
    let text = host.run(|| fs::read_to_string(&path))?;
    let count = text
        .lines()
        .find_map(|found| found.strip_prefix(line))
        .and_then(|rest| rest.split_whitespace().next())
        .context("no count of fragments")?;
    Ok(count.parse()?)
}
