//! Programs that somebody else takes off.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    guard::Guard,
    metrics,
    neighbour::{PASS, Program, tc},
    netns::Direct,
    wire::{Listener, QUIET, Wire},
};
use guard_userspace::bpf::syscalls;

use super::{FAMILIES, OVER, PORT, egress_hooks, health, status, strange};

/// Within so long it is back, also on a busy machine.
const BACK: Duration = Duration::from_secs(3);

/// Where the link of a hook is pinned.
fn pin(guard: &Guard<'_>, hook: &str) -> Result<PathBuf> {
    let mut folders = vec![guard.pins().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(hook) {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("no link is pinned for {hook}")
}

fn detach(pin: &Path) -> Result<()> {
    let link = syscalls::open_pin(pin)?;
    Ok(syscalls::detach_link(link.as_fd())?)
}

/// Takes a program off by `act`, and checks what is said from then on until it is back.
fn is_said_and_mended(
    topology: &Direct,
    guard: &Guard<'_>,
    what: &str,
    act: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let host = &topology.guarded;
    ensure!(health(host)? == 200, "{what}: unwell before");
    act()?;
    let since = Instant::now();
    ensure!(health(host)? == 503, "{what}: well without it");
    let listener = Listener::new(host, PORT)?;
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;
    let attached = || -> Result<u64> {
        let samples = guard.scrape()?;
        Ok(metrics::sum(&samples, "portguard_attached", &[]))
    };
    loop {
        FAMILIES
            .iter()
            .try_for_each(|family| strange(&wire, *family))?;
        if listener.delivered(QUIET) == 0 && attached()? == 2 {
            break;
        }
        ensure!(since.elapsed() < BACK, "{what}: not back: {}", guard.said());
    }
    println!("{what}: back after {:?}", since.elapsed());
    // Anyone who asks every few seconds hears of it.
    ensure!(health(host)? == 503, "{what}: as if nothing had been");
    let said = status(host, guard)?;
    let alarm = said.lines().find(|line| line.starts_with("ALARM"));
    ensure!(
        alarm.is_some_and(|line| line.contains("another program has taken off the")),
        "{what}: {said}"
    );
    while health(host)? != 200 {
        ensure!(since.elapsed() < OVER, "{what}: the alarm stays");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn f10_links_that_others_detach_are_put_back() -> Result<()> {
    let mut attempts = Vec::new();
    for mode in ["native", "generic"] {
        for hook in egress_hooks() {
            attempts.push((mode, *hook));
        }
    }
    thread::scope(|scope| {
        let each = attempts.iter().map(|(mode, hook)| {
            scope.spawn(move || -> Result<()> {
                let topology = Direct::new()?;
                let flags = ["--xdp-mode", mode, "--egress-hook", hook];
                let guard = Guard::start(&topology.guarded, "vg", &flags)?;
                let name = |what: &str| format!("{mode}, {hook}: {what}");
                is_said_and_mended(&topology, &guard, &name("XDP detached"), || {
                    detach(&pin(&guard, "xdp")?)
                })?;
                is_said_and_mended(&topology, &guard, &name("XDP unpinned"), || {
                    Ok(fs::remove_file(pin(&guard, "xdp")?)?)
                })?;
                if *hook == "tcx" {
                    is_said_and_mended(&topology, &guard, &name("egress detached"), || {
                        detach(&pin(&guard, "egress")?)
                    })?;
                    // It is still ours, and holds another's program.
                    is_said_and_mended(&topology, &guard, &name("egress replaced"), || {
                        let link = syscalls::open_pin(&pin(&guard, "egress")?)?;
                        let other = Program::returning(PASS)?;
                        Ok(syscalls::update_link(link.as_fd(), other.as_fd())?)
                    })?;
                }
                ensure!(guard.stop()?.success(), "{mode}, {hook}: a bad end");
                Ok(())
            })
        });
        let each: Vec<_> = each.collect();
        each.into_iter()
            .try_for_each(|attempt| attempt.join().expect("does not panic"))
    })
}

#[test]
fn f10_a_filter_that_others_delete_is_an_alarm() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let guard = Guard::start(host, "vg", &["--egress-hook", "clsact"])?;
    tc(host, "qdisc del dev vg clsact")?;
    let since = Instant::now();
    while health(host)? != 503 {
        ensure!(since.elapsed() < BACK, "well without it");
        thread::sleep(Duration::from_millis(5));
    }
    while health(host)? != 200 {
        ensure!(since.elapsed() < OVER, "the alarm stays");
        thread::sleep(Duration::from_millis(50));
    }
    let said = guard.said();
    let line = said
        .lines()
        .find(|line| line.contains("taken off the egress"));
    line.context("not said").map(drop)
}
