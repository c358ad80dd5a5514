//! Processes that hold sockets: one process may have too few files open for all of them.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    process::{Child, Stdio},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use guard_common::outcome::Family;
use guard_tests::{
    frames::{G, P},
    netns::Direct,
    peers::connect_from,
};

use super::population::{FLOW_PORT, FLOWS, SERVICE, least_buffer};

/// What a holder says once it has all its sockets.
const READY: &str = "ready\n";

/// A process that holds the sockets of one transport.
pub struct Holder(Child);

impl Holder {
    /// Starts it on the guarded host.
    pub fn start(hosts: &Direct, transport: Transport, family: Family) -> Result<Self> {
        let mut holder = hosts.guarded.command(env::current_exe()?);
        let transport = transport
            .to_possible_value()
            .context("a transport's name")?;
        holder
            .args(["hold", transport.get_name(), family.label()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Ok(Self(holder.spawn().context("start a holder of sockets")?))
    }

    /// Waits until it has them.
    pub fn wait(&mut self) -> Result<()> {
        let output = self.0.stdout.take().context("a holder without output")?;
        let mut said = String::new();
        BufReader::new(output).read_line(&mut said)?;
        ensure!(said == READY, "a holder of sockets has failed");
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a holder is told.
#[derive(Args)]
pub struct Hold {
    #[arg(value_enum)]
    transport: Transport,
    #[arg(value_parser = family)]
    family: Family,
}

/// Which sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Transport {
    /// Connected UDP sockets that have sent.
    Udp,
    /// TCP connections.
    Tcp,
}

fn family(label: &str) -> Result<Family, String> {
    let family = Family::ALL
        .into_iter()
        .find(|family| family.label() == label);
    family.ok_or_else(|| format!("no family {label}"))
}

/// What a holder does: makes its sockets, says so, and keeps them until its input ends.
pub fn hold(hold: &Hold) -> Result<()> {
    let remote = SocketAddr::new(P.address(hold.family), SERVICE);
    let locals = (FLOW_PORT..)
        .take(FLOWS as usize)
        .map(|port| SocketAddr::new(G.address(hold.family), port));
    let mut datagrams: Vec<UdpSocket> = Vec::new();
    let mut connections: Vec<TcpStream> = Vec::new();
    for local in locals {
        match hold.transport {
            Transport::Udp => datagrams.push(datagram(local, remote)?),
            Transport::Tcp => connections.push(connect_from(local, remote)?),
        }
    }

    print!("{READY}");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn datagram(local: SocketAddr, remote: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    least_buffer(&socket)?;
    socket.connect(remote)?;
    socket.send(b"query")?;
    Ok(socket)
}
