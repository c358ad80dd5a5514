//! O08: what a host sends to itself.

use std::{io::Write, net::TcpStream, time::Duration};

use anyhow::{Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    frames::G,
    guard::Guard,
    netns::Direct,
    peers::{Connection, Exchange, Talk},
    wire::Acceptor,
};

use super::MODES;

const PATIENCE: Duration = Duration::from_secs(1);

#[test]
fn o08_a_host_reaches_its_own_addresses() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        // Nothing of it meets the interface, so nothing of it is counted.
        guard.expect([], || {
            let acceptor = Acceptor::new(host, 40_000)?;
            for address in [
                G.address(Family::Ipv4),
                G.address(Family::Ipv6),
                "127.0.0.1".parse()?,
                "::1".parse()?,
            ] {
                let mut stream = host.run(|| TcpStream::connect((address, 40_000)))?;
                stream.write_all(b"hello")?;
                let mut connection = Connection::open(host, host, (address, 41_000), 1)?;
                let mut exchange = Exchange::open(host, host, (address, 42_000), false, 1)?;
                connection[0].speak()?;
                exchange[0].speak()?;
                ensure!(connection[0].hears(PATIENCE), "{mode}, {address}: TCP");
                ensure!(exchange[0].hears(PATIENCE), "{mode}, {address}: UDP");
            }
            let accepted = acceptor.accepted(guard_tests::wire::QUIET);
            ensure!(accepted == 4, "{mode}: {accepted} of 4 are accepted");
            Ok(())
        })?;
    }
    Ok(())
}
