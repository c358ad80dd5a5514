//! F10: the interface goes, comes back, and is changed by others.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::outcome::{Family, Outcome::PassKnownFlow};
use guard_tests::{
    frames::{P, udp},
    guard::Guard,
    metrics,
    netns::{Direct, Namespace},
    peers::{Exchange, Talk},
    rounds::emulated,
    wire::{Listener, QUIET, Wire},
};

use super::{FAMILIES, MODES, PATIENCE, PORT, attachments, egress_hooks, hooks};

/// How soon an interface must be guarded again.
const PROMISED: Duration = Duration::from_secs(2);

/// The same on an emulated machine, whose processors are tens of times slower.
fn promised() -> Duration {
    if emulated() { 3 * PROMISED } else { PROMISED }
}

/// What the guard says about a hook of an interface.
fn attached(guard: &Guard, interface: &str, hook: &str) -> Result<bool> {
    let labels = [("device", interface), ("hook", hook)];
    Ok(metrics::sum(&guard.scrape()?, "portguard_attached", &labels) == 1)
}

/// Waits until both hooks are there, by the kernel's word and by the guard's.
pub fn guarded_again(guard: &Guard, host: &Namespace, interface: &str) -> Result<()> {
    let since = Instant::now();
    loop {
        let there = hooks::xdp(host, interface)?.is_some() && hooks::egress(host, interface)? == 1;
        let told = attached(guard, interface, "xdp")? && attached(guard, interface, "egress")?;
        if there && told {
            return Ok(());
        }
        ensure!(
            since.elapsed() < promised(),
            "not guarded again, there: {there}, told: {told}: {}",
            guard.said()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Shows that unsolicited packets are dropped, and that who is asked is heard.
pub fn works(topology: &Direct, listener: &Listener, interface: &str) -> Result<()> {
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;
    for family in FAMILIES {
        wire.send(&udp(53, PORT).received(family))?;
    }
    let heard = listener.delivered(QUIET);
    ensure!(
        heard == 0,
        "{interface}: {heard} unsolicited packets are delivered"
    );
    for family in FAMILIES {
        let (host, peer) = (&topology.guarded, &topology.peer);
        let mut talk = Exchange::open(host, peer, (P.address(family), 8081), false, 1)?.remove(0);
        talk.speak()?;
        ensure!(talk.hears(PATIENCE), "{interface}: the answer is lost");
    }
    Ok(())
}

#[test]
fn f10_an_interface_that_is_made_anew_is_guarded_again() -> Result<()> {
    for mode in MODES {
        for hook in egress_hooks() {
            let topology = Direct::new()?;
            let (host, interface) = (&topology.guarded, topology.interface());
            let listener = Listener::new(host, PORT)?;
            let flags = ["--xdp-mode", mode, "--egress-hook", hook];
            let guard = Guard::start(host, interface, &flags)?;
            works(&topology, &listener, interface)?;
            for _ in 0..2 {
                host.ip("link del vg")?;
                thread::sleep(Duration::from_millis(300));
                ensure!(!attached(&guard, interface, "xdp")?, "told what is not");
                topology.connect()?;
                guarded_again(&guard, host, interface)?;
                works(&topology, &listener, interface)?;
            }
            ensure!(guard.stop()?.success(), "{mode}, {hook}: a bad end");
            ensure!(hooks::egress(host, interface)? == 0, "{mode}, {hook}");
            ensure!(hooks::xdp(host, interface)?.is_none(), "{mode}, {hook}");
        }
    }
    Ok(())
}

/// None of these takes a program off, and none costs a flow.
#[test]
fn f10_changes_that_keep_the_interface_keep_the_guard() -> Result<()> {
    for flags in attachments() {
        let topology = Direct::new()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        let listener = Listener::new(host, PORT)?;
        let guard = Guard::start(host, "vg", &flags)?;
        let server = P.address(Family::Ipv4);
        let mut talk = Exchange::open(host, peer, (server, 8090), false, 1)?.remove(0);
        let program = hooks::xdp(host, "vg")?;
        for change in ["link set vg mtu 1400", "link set vg mtu 1500"] {
            host.ip(change)?;
        }
        works(&topology, &listener, "vg")?;
        // A link that goes down takes its neighbours and the routes of IPv6 along.
        host.ip("link set vg down")?;
        host.ip("link set vg name vgx")?;
        host.ip("link set vgx up")?;
        host.ip("addr replace fd09::2/64 dev vgx nodad")?;
        let up = Instant::now();
        while !host.is_running("vgx")? {
            ensure!(up.elapsed() < PATIENCE, "the link does not come up");
            thread::sleep(Duration::from_millis(10));
        }
        guarded_again(&guard, host, "vgx")?;
        ensure!(
            hooks::xdp(host, "vgx")? == program,
            "{flags:?}: another program"
        );
        works(&topology, &listener, "vgx")?;
        guard.expect([(PassKnownFlow, 1)], || {
            talk.speak()?;
            ensure!(talk.hears(PATIENCE), "{flags:?}: a flow is lost");
            Ok(())
        })?;
        ensure!(guard.stop()?.success(), "{flags:?}: a bad end");
        ensure!(
            hooks::egress(host, "vgx")? == 0,
            "{flags:?}: egress is left"
        );
        ensure!(hooks::xdp(host, "vgx")?.is_none(), "{flags:?}: XDP is left");
    }
    Ok(())
}

/// G2: `tc qdisc del dev vg clsact` by somebody else.
#[test]
fn f10_a_filter_that_others_take_off_comes_back() -> Result<()> {
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let listener = Listener::new(host, PORT)?;
    let guard = Guard::start(host, interface, &["--egress-hook", "clsact"])?;
    works(&topology, &listener, interface)?;
    let words = ["-n", host.name(), "qdisc", "del", "dev", "vg", "clsact"];
    ensure!(Command::new("tc").args(words).status()?.success(), "tc");
    guarded_again(&guard, host, interface)?;
    works(&topology, &listener, interface)
}

/// Its place is taken, too: what would record there would record what unsolicited senders send.
#[test]
fn f10_nothing_is_guarded_where_nothing_can_be_recorded() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let mut guard = Guard::start(host, "vg", &["--egress-hook", "clsact"])?;
    // A daemon that runs between the two commands has put its own qdisc back before the second.
    guard.signal(libc::SIGSTOP);
    for words in [["del", "clsact"], ["add", "ingress"]] {
        let words = ["-n", host.name(), "qdisc", words[0], "dev", "vg", words[1]];
        let done = Command::new("tc").args(words).status()?;
        ensure!(done.success(), "tc {words:?}: {done}");
    }
    guard.signal(libc::SIGCONT);
    let since = Instant::now();
    while hooks::xdp(host, "vg")?.is_some()
        || attached(&guard, "vg", "xdp")?
        || attached(&guard, "vg", "egress")?
    {
        ensure!(since.elapsed() < promised(), "{}", guard.said());
        thread::sleep(Duration::from_millis(20));
    }
    let words = ["-n", host.name(), "qdisc", "del", "dev", "vg", "ingress"];
    ensure!(Command::new("tc").args(words).status()?.success(), "tc");
    guarded_again(&guard, host, "vg")
}

/// G3: the interface is somebody else's now, who wants it as it was.
#[test]
fn f10_an_interface_that_moves_away_is_let_go() -> Result<()> {
    let topology = Direct::new()?;
    let (host, elsewhere) = (&topology.guarded, Namespace::new("e")?);
    let guard = Guard::start(host, "vg", &[])?;
    host.ip(&format!("link set vg netns {}", elsewhere.name()))?;
    let since = Instant::now();
    loop {
        let there = hooks::xdp(&elsewhere, "vg")?.is_some() || hooks::egress(&elsewhere, "vg")? > 0;
        let told = attached(&guard, "vg", "xdp")? || attached(&guard, "vg", "egress")?;
        if !there && !told {
            return Ok(());
        }
        ensure!(
            since.elapsed() < promised(),
            "not let go, there: {there}, told: {told}: {}",
            guard.said()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn f17_an_interface_without_an_address_gets_one() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        host.ip("addr flush dev vg")?;
        let guard = Guard::start(host, "vg", &["--xdp-mode", mode])?;
        let listener = Listener::new(host, PORT)?;
        ensure!(attached(&guard, "vg", "xdp")?, "F17, {mode}: not attached");
        for command in [
            "addr add 10.9.0.2/24 dev vg",
            "addr add fd09::2/64 dev vg nodad",
        ] {
            host.ip(command)?;
        }
        works(&topology, &listener, "vg")?;
        let hears = |port| -> Result<usize> {
            let open = Listener::new(host, port)?;
            let wire = Wire::open(&topology.peer, topology.peer_interface())?;
            for family in FAMILIES {
                wire.send(&udp(53, port).received(family))?;
            }
            Ok(open.delivered(QUIET))
        };
        ensure!(
            hears(5_000)? == 2,
            "F17, {mode}: unsolicited packets are not delivered"
        );
        ensure!(
            hears(PORT + 1)? == 0,
            "F17, {mode}: unsolicited packets are delivered"
        );
    }
    Ok(())
}
