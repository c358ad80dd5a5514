//! Protocols whose answers come from another port, or from a server that calls back.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Result, ensure};
use guard_common::outcome::Outcome::{
    DropNoFlow, PassKnownFlow, PassNewFlow, PassOutsideRange, PassRefreshedFlow,
};
use guard_tests::{
    frames::{G, P, udp},
    peers::unspecified,
};

use super::{FAMILIES, Lab, MODES, PORT, delivered};

/// The server answers a read request from a port of its own choice, and goes on from there.
#[test]
fn d01_tftp_works_where_the_address_is_enough() -> Result<()> {
    for mode in MODES {
        for (filter, works) in [("address-and-port", false), ("address", true)] {
            let lab = Lab::new()?;
            let guard = lab.guard(mode, &["--udp-filter", filter])?;
            for family in FAMILIES {
                let (request, data) = (lab.server(family, 69)?, lab.server(family, 2_345)?);
                let socket = lab.socket(family, PORT)?;
                guard.expect([(PassNewFlow, 1)], || {
                    socket.send_to(b"RRQ", (P.address(family), 69))?;
                    Ok(())
                })?;
                let (_, client) = request.recv_from(&mut [0; 16])?;
                let answer = if works { PassKnownFlow } else { DropNoFlow };
                guard.expect([(answer, 1)], || {
                    data.send_to(b"DATA 1", client)?;
                    Ok(())
                })?;
                let heard = delivered(&socket);
                ensure!(heard == usize::from(works), "{mode}, {filter}: {heard}");
                if works {
                    guard.expect([(PassRefreshedFlow, 1), (PassKnownFlow, 1)], || {
                        socket.send_to(b"ACK 1", (P.address(family), 2_345))?;
                        data.recv_from(&mut [0; 16])?;
                        data.send_to(b"DATA 2", client)?;
                        Ok(())
                    })?;
                    ensure!(delivered(&socket) == 1, "{mode}, {filter}: DATA 2");
                }
                // Another host gets through in neither.
                guard.expect([(DropNoFlow, 1)], || {
                    let other = udp(69, PORT).from(guard_tests::frames::N);
                    lab.wire.send(&other.received(family))
                })?;
            }
        }
    }
    Ok(())
}

/// Active FTP, and callbacks of the same kind: the server connects to where the client listens.
#[test]
fn d07_a_server_that_calls_back_is_refused_by_silence() -> Result<()> {
    const PATIENCE: Duration = Duration::from_millis(300);

    for mode in MODES {
        let lab = Lab::new()?;
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        for family in FAMILIES {
            let control = peer.run(|| TcpListener::bind((P.address(family), 21)))?;
            let listener =
                host.run(|| TcpListener::bind((unspecified(G.address(family)), PORT)))?;
            let data = SocketAddr::new(G.address(family), PORT);
            let call = || peer.run(|| TcpStream::connect_timeout(&data, PATIENCE));
            ensure!(call().is_ok(), "{mode}: refused without a guard");
            listener.accept()?;

            let guard = lab.guard(mode, &[])?;
            let mut client = host.run(|| TcpStream::connect((P.address(family), 21)))?;
            let (mut server, _) = control.accept()?;
            client.write_all(b"PORT\r\n")?;
            server.read_exact(&mut [0; 6])?;
            let before = guard.packets()?;
            let refused = call().expect_err("the call is refused");
            ensure!(
                refused.kind() == std::io::ErrorKind::TimedOut,
                "{mode}: not by silence: {refused}"
            );
            let moved = guard.packets()?.since(&before);
            ensure!(moved.of(DropNoFlow) >= 1, "{mode}: {moved}");
            server.write_all(b"425 no\r\n")?;
            client.set_read_timeout(Some(Duration::from_secs(1)))?;
            client.read_exact(&mut [0; 8])?;
            let packets = guard.packets()?;
            ensure!(packets.of(PassOutsideRange) == 0, "{mode}: {packets}");
        }
    }
    Ok(())
}
