//! Y10: a range that grows over what is in use locks nobody out.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, TcpStream},
    os::fd::AsRawFd,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassExempt, PassOutsideRange};
use guard_tests::{
    clients::{Ssh, moves},
    frames::G,
    guard::Guard,
    netns::{Direct, Namespace},
    wire::{Acceptor, QUIET},
};

use crate::{MODES, blocked, change};

const OWN: [IpAddr; 2] = [IpAddr::V4(G.ipv4), IpAddr::V6(G.ipv6)];
const SSH: u16 = 2222;
/// How long a session may take to open or to answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// Somebody who works on the guarded host from afar.
struct Session {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(ssh: &Ssh, host: &Namespace, address: IpAddr) -> Result<Self> {
        let mut command = ssh.client(host, address, SSH, "cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut session = Self {
            input: child.stdin.take().context("it has an input")?,
            output: BufReader::new(child.stdout.take().context("it has an output")?),
            child,
        };
        session.answers()?;
        Ok(session)
    }

    fn answers(&mut self) -> Result<()> {
        self.input.write_all(b"still there?\n")?;
        let mut poll = libc::pollfd {
            fd: self.output.get_ref().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the one structure is the call's to write.
        let ready = unsafe { libc::poll(&raw mut poll, 1, PATIENCE.as_millis() as libc::c_int) };
        ensure!(ready == 1, "the session does not answer");
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(line == "still there?\n", "the session says {line:?}");
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reached(peer: &Namespace, address: IpAddr, port: u16) -> bool {
    peer.run(|| TcpStream::connect_timeout(&(address, port).into(), QUIET))
        .is_ok()
}

#[test]
fn y10_a_range_that_grows_over_a_session_leaves_its_port_open() -> Result<()> {
    let ssh = Ssh::new()?;
    for mode in MODES {
        let topology = Direct::new()?;
        let (guest, host) = (&topology.guarded, &topology.peer);
        let _server = ssh.serve(guest, SSH)?;
        // The control: nobody is being served there.
        let idle = Acceptor::new(guest, 2223)?;
        let flags = ["--xdp-mode", mode, "--no-rescue"];
        let mut guard = Guard::start(guest, topology.interface(), &flags)?;
        ensure!(blocked(&guard)? == 0, "Y10, {mode}: counted too early");
        let row = || format!("Y10, {mode}");
        for address in OWN {
            change(guest, &guard, "32768 60999")?;
            let mut session = moves(&guard, &[PassOutsideRange], &[PassExempt], || {
                let reached = reached(host, address, 2223);
                ensure!(reached, "the control is out of reach before");
                // A connection that nobody has accepted is being served, too.
                ensure!(idle.accepted(QUIET) == 1, "the control does not accept");
                Session::open(&ssh, host, address)
            })
            .with_context(row)?;
            moves(&guard, &[PassExempt], &[PassOutsideRange], || {
                change(guest, &guard, "1024 65535")?;
                session.answers()?;
                Session::open(&ssh, host, address)?.answers()
            })
            .with_context(row)?;
            moves(&guard, &[DropNoFlow], &[PassExempt], || {
                let reached = reached(host, address, 2223);
                ensure!(!reached, "the listener is left open");
                Ok(())
            })
            .with_context(row)?;
            session.answers().with_context(row)?;
        }
        // A crash must not shut out whom the range has let in, nor keep the guard from coming back.
        let mut sitting = Session::open(&ssh, host, OWN[0])?;
        guard.kill()?;
        guard.start_again(&flags)?;
        sitting.answers().with_context(row)?;
        for address in OWN {
            Session::open(&ssh, host, address)
                .and_then(|mut session| session.answers())
                .with_context(|| format!("{}, after a crash", row()))?;
            ensure!(
                !reached(host, address, 2223),
                "{}: the listener is left open by a crash",
                row()
            );
        }
        let said = guard.said();
        for line in [
            "--expose 2222/tcp says so for good",
            "--expose 2223/tcp lets them in",
        ] {
            ensure!(said.contains(line), "{}, {line}: {said}", row());
        }
        ensure!(
            blocked(&guard)? == 1,
            "{}: {} blocked",
            row(),
            blocked(&guard)?
        );
    }
    Ok(())
}

/// Asks for a page of the guard's own, on a connection that stays open.
fn scrape(stream: &mut TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")?;
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).context("no answer")?;
    ensure!(answer == *b"HTTP/1.1 200 OK", "not what was asked for");
    Ok(())
}

#[test]
fn y10_a_range_that_grows_over_a_scrape_lets_it_end() -> Result<()> {
    for mode in MODES {
        for address in OWN {
            let topology = Direct::new()?;
            let (guest, host) = (&topology.guarded, &topology.peer);
            let flags = ["--xdp-mode", mode, "--metrics-listen", "[::]:9750"];
            let guard = Guard::start(guest, topology.interface(), &flags)?;
            let mut stream = host.run(|| TcpStream::connect((address, 9750)))?;
            let row = || format!("Y10, {mode}, {address}");
            moves(&guard, &[PassExempt], &[PassOutsideRange], || {
                change(guest, &guard, "1024 65535")?;
                scrape(&mut stream)?;
                scrape(&mut host.run(|| TcpStream::connect((address, 9750)))?)
            })
            .with_context(row)?;
        }
    }
    Ok(())
}
