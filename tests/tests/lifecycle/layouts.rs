//! Upgrades and downgrades: the guard that stands has maps of another layout.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::{
    abi::layout::LAYOUT_VERSION,
    outcome::Outcome::{DropNoFlow, PassKnownFlow},
};
use guard_tests::{
    build,
    clients::moves,
    frames::P,
    guard::Guard,
    metrics,
    peers::{Connection, Exchange, Talk, alive},
};

use super::{FAMILIES, Lab, PATIENCE, attachments, hooks};

/// How long two versions record side by side where one cannot read the other's flows.
const SIDE_BY_SIDE: Duration = Duration::from_secs(5);

/// What is pinned for the one host of this guard, folder by folder.
pub fn folders(guard: &Guard) -> Result<Vec<String>> {
    let names = fs::read_dir(namespace(guard)?)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn namespace(guard: &Guard) -> Result<PathBuf> {
    let entry = fs::read_dir(guard.pins())?.next();
    Ok(entry.context("nothing is pinned")??.path())
}

/// Pins everything elsewhere, as another version would have.
fn rename(guard: &Guard, to: &str) -> Result<PathBuf> {
    let [now] = &folders(guard)?[..] else {
        anyhow::bail!("not one folder");
    };
    let namespace = namespace(guard)?;
    let folder = namespace.join(to);
    fs::rename(namespace.join(now), &folder)?;
    Ok(folder)
}

/// Gives maps names of their own, as a version does that keeps something else in them.
fn estrange(folder: &Path, maps: &[&str]) -> Result<()> {
    for map in maps {
        fs::rename(folder.join(map), folder.join(format!("{map}_new")))
            .with_context(|| format!("rename {map}"))?;
    }
    Ok(())
}

/// Exchanges of sockets that hear everybody: nothing but an entry knows of their peers.
fn exchanges(lab: &Lab, count: usize) -> Result<Vec<Exchange>> {
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let mut talks = Vec::new();
    for family in FAMILIES {
        let server = (P.address(family), 8081);
        talks.extend(Exchange::open(host, peer, server, false, count)?);
    }
    Ok(talks)
}

#[test]
fn f02_flows_and_counters_are_carried_into_another_layout() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let mut guard = lab.guard(&flags)?;
        let mut talks = exchanges(&lab, 50)?;
        ensure!(
            lab.scan(10)? == 0,
            "{flags:?}: unsolicited packets are delivered"
        );
        let mut scanned = 20;
        let own = LAYOUT_VERSION.to_string();
        for (layout, kept) in [("9", true), (&own, false)] {
            let flags = if kept {
                [&flags[..], &["--keep-attached"]].concat()
            } else {
                flags.to_vec()
            };
            guard.kill()?;
            guard.alter(&["--layout", layout]);
            guard.start_again(&flags)?;
            ensure!(folders(&guard)? == [format!("v{layout}")], "{flags:?}");
            let (host, interface) = (&lab.topology.guarded, lab.topology.interface());
            ensure!(hooks::egress(host, interface)? == 1, "{flags:?}: egress");
            ensure!(
                guard.said().contains("100 flows carried over\n"),
                "{flags:?}: {}",
                guard.said()
            );
            let packets = guard.packets()?;
            ensure!(packets.of(DropNoFlow) == scanned, "{flags:?}:{packets}");
            guard.expect([(PassKnownFlow, 100)], || {
                ensure!(alive(&mut talks, PATIENCE)? == 100, "{flags:?}: {layout}");
                Ok(())
            })?;
            ensure!(
                lab.scan(10)? == 0,
                "{flags:?}: unsolicited packets are delivered"
            );
            scanned += 20;
        }
        ensure!(guard.end()?.success(), "{flags:?}: {}", guard.said());
        ensure!(lab.hears(1)?, "{flags:?}: something is left");
    }
    Ok(())
}

/// The control of the above: flows that are not copied are lost.
#[test]
fn f02_flows_that_are_not_carried_are_lost() -> Result<()> {
    let lab = Lab::new()?;
    let mut guard = lab.guard(&[])?;
    let mut talks = exchanges(&lab, 5)?;
    guard.kill()?;
    guard.alter(&["--layout", "9", "--without", "carrying"]);
    guard.start_again(&[])?;
    guard.expect([(DropNoFlow, 10)], || {
        let heard = alive(&mut talks, Duration::from_millis(300))?;
        ensure!(heard == 0, "{heard} are heard whom nobody knows");
        Ok(())
    })
}

/// What another version keeps in another form is learned from sockets. Who has asked by a socket
/// that is not connected, which nothing but the old maps knows of, has some time for the answer.
#[test]
fn f02_what_cannot_be_read_is_learned_anew() -> Result<()> {
    let lab = Lab::new()?;
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let mut guard = lab.guard(&["--no-rescue"])?;
    let mut talks: Vec<Box<dyn Talk + Send>> = Vec::new();
    for family in FAMILIES {
        let server = (P.address(family), 8080);
        for connection in Connection::open(host, peer, server, 10)? {
            talks.push(Box::new(connection));
        }
        for exchange in Exchange::open(host, peer, server, true, 10)? {
            talks.push(Box::new(exchange));
        }
    }
    let mut unconnected = exchanges(&lab, 1)?;
    ensure!(lab.scan(10)? == 0, "unsolicited packets are delivered");
    guard.kill()?;
    let folder = rename(&guard, "v9")?;
    estrange(
        &folder,
        &[
            "flows_tcp4",
            "flows_tcp6",
            "flows_udp4",
            "flows_udp6",
            "counters",
        ],
    )?;

    let began = Instant::now();
    let heard = thread::scope(|scope| -> Result<usize> {
        let late = scope.spawn(|| {
            thread::sleep(SIDE_BY_SIDE / 2);
            alive(&mut unconnected, PATIENCE)
        });
        guard.start_again(&["--no-rescue"])?;
        late.join().expect("it does not panic")
    })?;
    ensure!(heard == 2, "{heard} of 2 have their answer");
    let (took, said) = (began.elapsed(), guard.said());
    ensure!(took > SIDE_BY_SIDE, "side by side for {took:?}");
    for line in [
        "maps of v9: 0 flows carried over; those that are kept in another form there are learned \
         from their sockets",
        "counters that are kept in another form start at 0",
    ] {
        ensure!(said.contains(line), "{said}");
    }
    let own = format!("v{LAYOUT_VERSION}");
    ensure!(folders(&guard)? == [own], "{:?}", folders(&guard)?);
    ensure!(
        hooks::egress(host, lab.topology.interface())? == 1,
        "egress"
    );
    let packets = guard.packets()?;
    ensure!(packets.of(DropNoFlow) == 0, "{packets}");
    moves(&guard, &[PassKnownFlow], &[], || {
        ensure!(alive(&mut talks, PATIENCE)? == 40, "cut off");
        Ok(())
    })?;
    ensure!(lab.scan(10)? == 0, "unsolicited packets are delivered");
    // The control: by now nobody knows of them.
    guard.expect([(DropNoFlow, 2)], || {
        let heard = alive(&mut unconnected, Duration::from_millis(300))?;
        ensure!(heard == 0, "{heard} are heard whom nobody knows");
        Ok(())
    })
}

/// Rescues are counted beside the frames.
#[test]
fn f02_tallies_are_carried_too() -> Result<()> {
    let lab = Lab::new()?;
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let mut guard = lab.guard(&["--max-flows", "1024", "--timeout", "udp=1"])?;
    let server = (P.address(FAMILIES[0]), 8081);
    let mut talk = Exchange::open(host, peer, server, true, 1)?.remove(0);
    let rescues = |guard: &Guard| -> Result<u64> {
        Ok(metrics::sum(
            &guard.scrape()?,
            "portguard_rescues_total",
            &[],
        ))
    };
    let deadline = Instant::now() + PATIENCE * 3;
    while rescues(&guard)? == 0 {
        ensure!(Instant::now() < deadline, "nothing expires");
        thread::sleep(Duration::from_millis(1500));
        talk.speak()?;
        ensure!(talk.hears(PATIENCE), "cut off");
    }
    let before = rescues(&guard)?;
    guard.kill()?;
    guard.alter(&["--layout", "9"]);
    guard.start_again(&["--max-flows", "2048"])?;
    let after = rescues(&guard)?;
    ensure!(after == before, "{before} rescues became {after}");
    Ok(())
}

#[test]
fn detach_removes_what_every_version_has_left() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let (host, interface) = (&lab.topology.guarded, lab.topology.interface());
        let mut guard = lab.guard(&flags)?;
        guard.kill()?;
        // As if a second run had been killed while it took over from this one.
        let folder = rename(&guard, "v9-before2")?;
        estrange(&folder, &["counters"])?;
        fs::create_dir(folder.with_file_name("v12"))?;
        fs::rename(
            folder.join("tallies"),
            folder.with_file_name("v12").join("tallies"),
        )?;
        let mut detach = host.command(build::binary());
        detach.arg("detach").arg("--pin-dir").arg(guard.pins());
        let printed = run(&mut detach)?;
        ensure!(
            printed.matches("removed the maps in").count() == 2,
            "{printed}"
        );
        ensure!(hooks::egress(host, interface)? == 0, "{flags:?}: egress");
        ensure!(hooks::xdp(host, interface)?.is_none(), "{flags:?}: XDP");
        let left = fs::read_dir(guard.pins()).map_or(0, Iterator::count);
        ensure!(left == 0, "{flags:?}: {left} folders are left");
        ensure!(lab.hears(1)?, "{flags:?}: something is left");
    }
    Ok(())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}
