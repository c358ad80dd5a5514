//! `portguard ports` on ranges that are really used up.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    build,
    frames::{G, P},
    netns::Direct,
};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Twenty ports, of which one is reserved and one has a listener.
const RANGE: &str = "40000 40019";
const RESERVED: &str = "40003";
const LISTENER: u16 = 40_001;

/// Ports of the peer.
const SERVERS: std::ops::Range<u16> = 400..430;

/// A host with a range of twenty ports, and servers to connect to.
struct Crowded {
    topology: Direct,
    _listener: TcpListener,
    servers: Vec<TcpListener>,
}

impl Crowded {
    fn new() -> Result<Self> {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        host.sysctl("net/ipv4/ip_local_port_range", RANGE)?;
        host.sysctl("net/ipv4/ip_local_reserved_ports", RESERVED)?;
        let listener = host.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, LISTENER)))?;
        let servers = topology.peer.run(|| {
            SERVERS
                .map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
                .collect::<io::Result<Vec<_>>>()
        })?;

        Ok(Self {
            topology,
            _listener: listener,
            servers,
        })
    }

    fn ports(&self, words: &[&str]) -> Result<String> {
        let output = self
            .topology
            .guarded
            .command(build::binary())
            .arg("ports")
            .args(words)
            .output()?;
        ensure!(output.status.success(), "{output:?}");

        Ok(String::from_utf8(output.stdout)?)
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.ports(&[&["--json"], words].concat())?;

        serde_json::from_str(&text).with_context(|| text)
    }

    fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let server = SocketAddr::new(IpAddr::V4(P.ipv4), port);

        self.topology.guarded.run(|| TcpStream::connect(server))
    }

    /// Connects as programs do that bind before they know why.
    fn bind_and_connect(&self, port: u16) -> io::Result<Socket> {
        self.topology.guarded.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(IpAddr::V4(G.ipv4), 0).into())?;
            socket.connect(&SocketAddr::new(IpAddr::V4(P.ipv4), port).into())?;
            Ok(socket)
        })
    }
}

#[test]
fn a_destination_is_full_when_connect_says_so() -> Result<()> {
    let host = Crowded::new()?;
    let mut open = Vec::new();
    let refused = loop {
        match host.connect(SERVERS.start) {
            Ok(connection) => open.push(connection),
            Err(error) => break error,
        }
        ensure!(open.len() <= 20, "the range has no end");
    };
    ensure!(refused.kind() == ErrorKind::AddrNotAvailable, "{refused}");
    let elsewhere = host.connect(SERVERS.start + 1)?;
    let found = host.json(&[])?;
    ensure!(open.len() == 18, "{} connections", open.len());
    let full = &found["destinations"][0];
    ensure!(
        full["remote"] == format!("{}:{}", P.ipv4, SERVERS.start),
        "{found:#}"
    );
    ensure!(full["protocol"] == "tcp", "{found:#}");
    ensure!(full["used"] == 18 && full["capacity"] == 18, "{found:#}");
    ensure!(full["ratio"] == 1.0, "{found:#}");
    let other = &found["destinations"][1];
    ensure!(other["used"] == 1 && other["capacity"] == 18, "{found:#}");
    ensure!(found["available"]["tcp"] == 0, "{found:#}");
    ensure!(found["in_use"]["tcp"] == 19, "{found:#}");
    ensure!(found["available"]["udp"] == 19, "{found:#}");
    ensure!(found["states"]["established"] == 19, "{found:#}");
    ensure!(found["states"]["listen"] == 1, "{found:#}");
    let own = i64::from(std::process::id());
    let process = &found["processes"][0];
    ensure!(process["pid"] == own && process["tcp"] == 20, "{found:#}");
    ensure!(process["without_destination"] == 1, "{found:#}");
    let said = host.ports(&[])?;
    ensure!(said.contains("has no port left: 18 of 18"), "{said}");

    // What has ended waits, and is still in the way of a new one.
    let accepted = [vec![&host.servers[1]], vec![&host.servers[0]; open.len()]]
        .concat()
        .into_iter()
        .map(TcpListener::accept)
        .collect::<io::Result<Vec<_>>>()?;
    // Closing alone would wait for children of other tests, which have the same files until they are
    // another program.
    for connection in open.iter().chain([&elsewhere]) {
        connection.shutdown(Shutdown::Both)?;
    }
    for (connection, _) in &accepted {
        connection.shutdown(Shutdown::Both)?;
    }
    let found = host.json(&[])?;
    ensure!(found["states"]["time_wait"] == 19, "{found:#}");
    ensure!(found["destinations"][0]["ratio"] == 1.0, "{found:#}");
    Ok(())
}

#[test]
fn a_range_is_full_of_what_binds_before_it_connects() -> Result<()> {
    let host = Crowded::new()?;
    let mut open = Vec::new();
    let refused = loop {
        match host.bind_and_connect(SERVERS.start + open.len() as u16) {
            Ok(socket) => open.push(socket),
            Err(error) => break error,
        }
        ensure!(open.len() <= 20, "the range has no end");
    };
    ensure!(refused.kind() == ErrorKind::AddrInUse, "{refused}");
    ensure!(open.len() == 18, "{} sockets", open.len());
    let found = host.json(&[])?;
    ensure!(found["available"]["tcp"] == 0, "{found:#}");
    let most = found["destinations"][0]["used"].as_u64();
    ensure!(most == Some(1), "{found:#}");
    let said = host.ports(&[])?;
    ensure!(said.contains("IP_BIND_ADDRESS_NO_PORT"), "{said}");
    ensure!(!said.contains("connect() to"), "{said}");
    Ok(())
}

#[test]
fn the_end_of_a_range_is_foreseen() -> Result<()> {
    let host = Crowded::new()?;
    host.topology
        .guarded
        .sysctl("net/ipv4/ip_local_port_range", "40000 41001")?;
    let found = thread::scope(|scope| {
        let asked = scope.spawn(|| host.json(&["--seconds", "3"]));
        let mut open = Vec::new();
        while !asked.is_finished() {
            open.push(host.connect(SERVERS.start)?);
            thread::sleep(Duration::from_millis(50));
        }
        asked.join().expect("no panic")
    })?;
    let to = &found["destinations"][0];
    let (used, capacity) = (to["used"].as_f64(), to["capacity"].as_f64());
    let left = capacity.context("a capacity")? - used.context("in use")?;
    // At most one every 50 ms, and all of those that are open came meanwhile.
    let soonest = left * 0.05;
    let seconds = to["exhausted_in_seconds"].as_f64().context("no end")?;
    ensure!(
        (soonest..soonest * 3.0).contains(&seconds),
        "{seconds} s, {soonest} at the soonest: {found:#}"
    );
    let calm = host.json(&[])?;
    ensure!(
        calm["destinations"][0]["exhausted_in_seconds"].is_null(),
        "{calm:#}"
    );
    Ok(())
}
