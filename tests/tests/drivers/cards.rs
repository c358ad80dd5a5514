//! Network cards, which only the guests of `cargo xtask test --drivers` have to spare.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::loaded_programs;
use guard_common::outcome::Outcome::DropNoFlow;
use guard_tests::{
    build,
    cards::{Card, Cards, Hosts},
    frames::{P, udp},
    guard::Guard,
    kernel,
    wire::{Listener, QUIET, Wire},
};

use super::{FAMILIES, PORT, checked, shown, told};

/// How long an emulated machine may take to deliver something.
const PATIENCE: Duration = Duration::from_secs(20);
/// How soon a guard must have followed the MTU.
const PROMISED: Duration = Duration::from_secs(3);

/// Tries each card of this machine, and tells of all that fail.
fn each(act: impl Fn(&Lab<'_>) -> Result<()>) -> Result<()> {
    let Some(cards) = Cards::of_this_machine()? else {
        return Ok(());
    };
    let mut failed = Vec::new();
    for card in &cards.cards {
        let since = Instant::now();
        let lab = Lab::new(&cards, card);
        match lab.and_then(|lab| act(&lab)) {
            Ok(()) => println!("{}: ok after {:.1?}", card.name, since.elapsed()),
            Err(error) => failed.push(format!("{}: {error:#}", card.name)),
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// A host with a card, a listener on a guarded port there, and a peer who knows of it.
struct Lab<'a> {
    card: &'a Card,
    listener: Listener,
    wire: Wire,
    hosts: Hosts,
    complaints: usize,
    fixed_offloads: usize,
}

impl<'a> Lab<'a> {
    fn new(cards: &Cards, card: &'a Card) -> Result<Self> {
        let (complaints, fixed_offloads) = (kernel::complaints(), kernel::fixed_offloads());
        let hosts = cards.hosts(card)?;
        let lab = Self {
            card,
            listener: Listener::new(&hosts.direct.guarded, PORT)?,
            wire: Wire::open(&hosts.direct.peer, "vp")?,
            hosts,
            complaints,
            fixed_offloads,
        };
        lab.is_open().context("before there is a guard")?;
        Ok(lab)
    }

    fn guard(&self) -> Result<Guard<'_>> {
        Guard::start(&self.hosts.direct.guarded, "vg", &["--xdp-mode", "auto"])
    }

    fn scan(&self) -> Result<usize> {
        for family in FAMILIES {
            self.wire.send(&udp(53, PORT).received(family))?;
        }
        Ok(self.listener.delivered(QUIET))
    }

    /// Unsolicited datagrams arrive, and so do answers: there is no guard, and nothing of one.
    fn is_open(&self) -> Result<()> {
        let since = Instant::now();
        while self.scan()? < FAMILIES.len() {
            ensure!(since.elapsed() < PATIENCE, "unsolicited datagrams are lost");
        }
        self.asks(100)
    }

    /// Connections work and unsolicited datagrams are dropped, which the program counts.
    fn is_guarded(&self, guard: &Guard<'_>, mode: &str, length: usize) -> Result<()> {
        let host = &self.hosts.direct.guarded;
        let (told, shown) = (told(guard, "vg")?, shown(host, "vg")?);
        ensure!(
            told == mode && shown == Some(mode),
            "told {told}, shown {shown:?}, not {mode}: {}",
            guard.said()
        );
        let before = guard.packets()?.of(DropNoFlow);
        let since = Instant::now();
        while guard.packets()?.of(DropNoFlow) < before + 2 {
            let heard = self.scan()?;
            ensure!(heard == 0, "{mode}: {heard} unsolicited datagrams arrive");
            ensure!(since.elapsed() < PATIENCE, "{mode}: nothing is dropped");
        }
        self.asks(length).with_context(|| format!("{mode} mode"))
    }

    /// Has the guarded host ask its peer for so many bytes, over TCP, in one connection each family.
    fn asks(&self, length: usize) -> Result<()> {
        let (host, peer) = (&self.hosts.direct.guarded, &self.hosts.direct.peer);
        for family in FAMILIES {
            let address = SocketAddr::new(P.address(family), 8080);
            let server = peer.run(|| TcpListener::bind(address))?;
            let serving = thread::spawn(move || -> Result<()> {
                let (mut stream, _) = server.accept()?;
                stream.write_all(&vec![7; length])?;
                Ok(())
            });
            let mut client = host
                .run(|| TcpStream::connect_timeout(&address, PATIENCE))
                .with_context(|| format!("{family:?}: connect"))?;
            client.set_read_timeout(Some(PATIENCE))?;
            let mut answer = Vec::new();
            client
                .read_to_end(&mut answer)
                .with_context(|| format!("{family:?}: read {length} bytes"))?;
            ensure!(answer.len() == length, "{family:?}: {} bytes", answer.len());
            serving.join().expect("does not panic")?;
        }
        Ok(())
    }

    /// Waits until the card has a link again, which some take seconds to have.
    fn has_link(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            let output = std::process::Command::new("ip")
                .args(["-n", self.hosts.direct.guarded.name(), "link", "show", "vg"])
                .output()?;
            if String::from_utf8_lossy(&output.stdout).contains(" state UP ") {
                return Ok(());
            }
            ensure!(since.elapsed() < PATIENCE, "no link");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the guard has gone to this mode.
    fn goes_to(&self, guard: &Guard<'_>, mode: &str) -> Result<()> {
        let since = Instant::now();
        while told(guard, "vg")? != mode || shown(&self.hosts.direct.guarded, "vg")? != Some(mode) {
            ensure!(since.elapsed() < PROMISED, "not {mode}: {}", guard.said());
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Nothing of a guard is left: not in the driver either, where nothing shows it.
    fn is_clean(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            let left = loaded_programs()
                .filter_map(Result::ok)
                .filter_map(|program| program.name_as_str().map(str::to_owned))
                .find(|name| name.starts_with("ingress") || name.starts_with("portguard"));
            match left {
                None => break,
                Some(left) if since.elapsed() > PATIENCE => bail!("the program {left} is left"),
                Some(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
        ensure!(
            kernel::complaints() == self.complaints,
            "the kernel complains of a program that the driver has kept"
        );
        self.is_open().context("after the guard")
    }

    fn ends(&self, guard: Guard<'_>) -> Result<()> {
        let warned = kernel::fixed_offloads() > self.fixed_offloads;
        let told = guard
            .said()
            .contains("the kernel writes a warning to its log");
        ensure!(
            warned == told,
            "the kernel warned of an offload: {warned}, and that was told: {told}"
        );
        ensure!(guard.stop()?.success(), "a bad end");
        self.is_clean()
    }

    /// As much as frames of the large MTU carry, where they arrive.
    fn much(&self) -> usize {
        if self.card.long { 200_000 } else { 100 }
    }
}

#[test]
fn a_card_is_guarded_as_check_has_said() -> Result<()> {
    each(|lab| {
        let host = &lab.hosts.direct.guarded;
        let usual = lab.card.usual.as_str();
        let checked = checked(host, "vg", &[])?;
        ensure!(checked.starts_with(&format!("{usual} mode")), "{checked}");
        let guard = lab.guard()?;
        lab.is_guarded(&guard, usual, lab.much())?;
        lab.ends(guard)
    })
}

#[test]
fn a_guard_follows_the_mtu_of_its_card() -> Result<()> {
    each(|lab| {
        let (usual, large) = (lab.card.usual.as_str(), lab.card.large.as_str());
        let guard = lab.guard()?;
        lab.is_guarded(&guard, usual, 100)?;
        lab.hosts.set_mtu(9000)?;
        lab.goes_to(&guard, large)?;
        if lab.card.long {
            lab.is_guarded(&guard, large, lab.much())?;
        }
        lab.hosts.set_mtu(1500)?;
        lab.goes_to(&guard, usual)?;
        lab.is_guarded(&guard, usual, 100)?;
        lab.ends(guard)
    })
}

/// What makes the queues of a card anew must not lose the program, which the kernel may show still.
#[test]
fn a_guard_stays_in_force_when_its_card_is_reset() -> Result<()> {
    each(|lab| {
        let (host, usual) = (&lab.hosts.direct.guarded, lab.card.usual.as_str());
        let guard = lab.guard()?;
        lab.is_guarded(&guard, usual, 100)?;
        host.run(|| std::fs::write("/proc/sys/net/ipv6/conf/vg/keep_addr_on_down", "1"))?;
        host.ip("link set vg down")?;
        host.ip("link set vg up")?;
        lab.has_link()?;
        lab.is_guarded(&guard, usual, 100).context("down and up")?;
        lab.hosts.set_mtu(1400)?;
        lab.has_link()?;
        lab.is_guarded(&guard, usual, 100).context("another MTU")?;
        lab.hosts.set_mtu(1500)?;
        lab.has_link()?;
        lab.is_guarded(&guard, usual, 100)
            .context("the first MTU")?;
        lab.ends(guard)
    })
}

/// Also where the driver would not let go of the program at that MTU.
#[test]
fn a_guard_lets_go_at_another_mtu() -> Result<()> {
    each(|lab| {
        let host = &lab.hosts.direct.guarded;
        let large = lab.card.large.as_str();
        let mut guard = lab.guard()?;
        guard.kill()?;
        lab.hosts.set_mtu(9000)?;
        let pins = guard.pins().display().to_string();
        let checked = checked(host, "vg", &["--pin-dir", &pins])?;
        ensure!(checked.starts_with(&format!("{large} mode")), "{checked}");
        // A start goes to the mode that suits the MTU, and its end lets go.
        guard.start_again(&["--xdp-mode", "auto"])?;
        lab.goes_to(&guard, large)?;
        guard.kill()?;
        lab.hosts.set_mtu(1500)?;
        guard.start_again(&["--xdp-mode", "auto"])?;
        guard.kill()?;
        lab.hosts.set_mtu(9000)?;
        let output = host
            .command(build::binary())
            .args(["detach", "--pin-dir", &pins])
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && said.contains("detached vg (XDP, egress)"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mtu = std::process::Command::new("ip")
            .args(["-n", host.name(), "link", "show", "dev", "vg"])
            .output()?;
        ensure!(
            String::from_utf8_lossy(&mtu.stdout).contains(" mtu 9000 "),
            "another MTU stays"
        );
        lab.hosts.set_mtu(1500)?;
        lab.is_clean()
    })
}
