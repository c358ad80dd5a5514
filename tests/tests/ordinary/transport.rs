//! N10: connections of several paths, and such as carry data in the SYN.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassExempt, PassKnownFlow};
use guard_tests::{
    clients::{Protocol, Server, Service, kernel_counter, moves, run},
    frames::{G2, P},
    netns::Direct,
    scratch::Scratch,
};

use crate::{MODES, PEERS, guarded, in_url};

#[test]
fn n10_a_connection_takes_two_paths() -> Result<()> {
    // What `socket` is told instead of TCP.
    const MPTCP: i32 = libc::IPPROTO_MPTCP;

    let scratch = Scratch::new()?;
    let file = vec![b'x'; 20_000_000];
    let (sent, received) = (scratch.write("sent", &file)?, scratch.file("received"));
    for mode in MODES {
        let topology = Direct::new()?;
        let (guest, host) = (&topology.guarded, &topology.peer);
        let interface = topology.interface();
        guest.ip(&format!("addr add {}/24 dev {interface}", G2.ipv4))?;
        // Deprecated, so that it is not the first path.
        guest.ip(&format!(
            "addr add {}/64 dev {interface} nodad preferred_lft 0",
            G2.ipv6
        ))?;
        for end in [guest, host] {
            end.ip("mptcp limits set subflow 4 add_addr_accepted 4")?;
        }
        for address in [G2.ipv4.to_string(), G2.ipv6.to_string()] {
            guest.ip(&format!(
                "mptcp endpoint add {address} dev {interface} subflow"
            ))?;
        }
        let line = format!(
            "socat -U TCP6-LISTEN:80,fork,reuseaddr,ipv6only=0,so-prototype={MPTCP} OPEN:{}",
            sent.display()
        );
        let _server = Server::start(host, &line)?.listening(host, Protocol::Tcp, 80)?;
        let guard = guarded(&topology, mode, &[])?;
        for peer in PEERS {
            let count = |what| kernel_counter(guest, "netstat", "MPTcpExt", what);
            let before = (count("MPCapableSYNACKRX")?, count("MPJoinSynAckRx")?);
            let peer = in_url(peer);
            let (to, received) = (format!("TCP:{peer}:80"), received.display());
            let line = format!("socat -u {to},so-prototype={MPTCP} CREATE:{received}");
            moves(&guard, &[PassKnownFlow], &[], || run(guest, &line))
                .with_context(|| format!("N10, {mode}, {line}"))?;
            let after = (count("MPCapableSYNACKRX")?, count("MPJoinSynAckRx")?);
            ensure!(
                after.0 == before.0 + 1 && after.1 > before.1,
                "N10, {mode}, {peer}: not several paths: {before:?}, then {after:?}"
            );
            let whole = fs::read(scratch.file("received"))? == file;
            ensure!(whole, "N10, {mode}, {peer}: another file arrived");
        }
    }
    Ok(())
}

/// A path that the peer opens is a connection from outside: it takes the port to be exposed, and the
/// connection goes on without it.
#[test]
fn n10_a_path_that_the_peer_opens_takes_an_exposed_port() -> Result<()> {
    const MPTCP: i32 = libc::IPPROTO_MPTCP;
    /// Where the guest takes further paths.
    const PORT: u16 = 41_000;

    let scratch = Scratch::new()?;
    let file = vec![b'x'; 20_000_000];
    let (sent, received) = (scratch.write("sent", &file)?, scratch.file("received"));
    for (mode, exposed) in MODES
        .into_iter()
        .flat_map(|mode| [(mode, false), (mode, true)])
    {
        let topology = Direct::new()?;
        let (guest, host) = (&topology.guarded, &topology.peer);
        let interface = topology.interface();
        guest.ip(&format!("addr add {}/24 dev {interface}", G2.ipv4))?;
        for end in [guest, host] {
            end.ip("mptcp limits set subflow 4 add_addr_accepted 4")?;
        }
        let endpoint = format!("{} dev {interface} port {PORT} signal", G2.ipv4);
        guest.ip(&format!("mptcp endpoint add {endpoint}"))?;
        let line = format!(
            "socat -U TCP-LISTEN:80,fork,reuseaddr,so-prototype={MPTCP} OPEN:{}",
            sent.display()
        );
        let _server = Server::start(host, &line)?.listening(host, Protocol::Tcp, 80)?;
        let port = format!("{PORT}/tcp");
        let flags: &[&str] = if exposed { &["--expose", &port] } else { &[] };
        let guard = guarded(&topology, mode, flags)?;
        let joined = || kernel_counter(guest, "netstat", "MPTcpExt", "MPJoinAckRx");
        let (before, counted) = (joined()?, guard.packets()?);
        let to = format!("TCP:{}:80,so-prototype={MPTCP}", P.ipv4);
        run(
            guest,
            &format!("socat -u {to} CREATE:{}", received.display()),
        )?;
        let whole = fs::read(&received)? == file;
        ensure!(whole, "N10, {mode}, {exposed}: another file arrived");
        let (joined, moved) = (joined()? - before, guard.packets()?.since(&counted));
        let row = format!("N10, {mode}, exposed: {exposed}: {joined} paths,{moved}");
        ensure!((joined > 0) == exposed, "{row}");
        ensure!((moved.of(PassExempt) > 0) == exposed, "{row}");
        ensure!((moved.of(DropNoFlow) > 0) != exposed, "{row}");
    }
    Ok(())
}

#[test]
fn n10_a_request_travels_in_the_syn() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let (guest, host) = (&topology.guarded, &topology.peer);
        // Clients may, and every server does.
        guest.sysctl("net/ipv4/tcp_fastopen", "1")?;
        host.sysctl("net/ipv4/tcp_fastopen", "1026")?;
        let _server = Service::new(host, 80, |mut stream| {
            let mut lines = BufReader::new(stream.try_clone()?);
            let mut line = String::from("a request");
            while !line.trim_end().is_empty() {
                line.clear();
                lines.read_line(&mut line)?;
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfast")
        })?;
        let guard = guarded(&topology, mode, &[])?;
        for peer in PEERS {
            let line = format!("curl -sSf --tcp-fastopen http://{}/", in_url(peer));
            let count = || kernel_counter(guest, "netstat", "TcpExt", "TCPFastOpenActive");
            let before = count()?;
            // The first asks for the cookie.
            for _ in 0..2 {
                let page = moves(&guard, &[PassKnownFlow], &[], || run(guest, &line))
                    .with_context(|| format!("N10, {mode}, {line}"))?;
                ensure!(page == "fast", "N10, {mode}, {peer}: {page:?}");
            }
            let fast = count()? - before;
            ensure!(fast == 1, "N10, {mode}, {peer}: {fast} requests in a SYN");
        }
    }
    Ok(())
}
