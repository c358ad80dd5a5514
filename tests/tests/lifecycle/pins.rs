//! What is pinned: others remove it, it is left behind, or it is in the wrong place.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use guard_common::{
    flow::{
        key::{FlowKeyV4, FlowKeyV6},
        state::{Flow, Phase},
    },
    frame::transport::Transport,
    outcome::{Family, Outcome::PassKnownFlow},
};
use guard_tests::{
    bad_input::{Host, Mutation},
    build,
    frames::P,
    guard::Guard,
    kernel::Kernel,
    netns::Direct,
    peers::{Exchange, Talk},
    scratch,
};
use guard_userspace::{
    bpf::{
        maps::{FlowEntry, FlowMap},
        pins::Pins,
        syscalls::{HashMap, open_pin},
    },
    host::namespace,
};

use super::{
    Lab, PATIENCE, attachments,
    interfaces::{guarded_again, works},
};

/// How long a start may take on an emulated machine that shares a processor.
const START: Duration = Duration::from_secs(60);

/// The folder of the guard's maps.
fn folder(guard: &Guard<'_>) -> Result<PathBuf> {
    let mut folder = guard.pins().to_owned();
    for _ in ["namespace", "layout"] {
        let mut entries = fs::read_dir(&folder)?;
        folder = entries.next().context("an empty folder")??.path();
    }
    Ok(folder)
}

fn says(guard: &Guard<'_>, part: &str) -> Result<()> {
    let since = Instant::now();
    while !guard.said().contains(part) {
        ensure!(since.elapsed() < PATIENCE, "no {part:?}: {}", guard.said());
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn f16_pins_that_others_remove_are_put_back() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        let mut guard = lab.guard(&flags)?;
        let server = P.address(Family::Ipv4);
        // Nothing but its entry knows of an unconnected socket's peer.
        let mut talk = Exchange::open(host, peer, (server, 8090), false, 1)?.remove(0);
        let pinned = folder(&guard)?;
        let names = || -> Result<Vec<_>> {
            let mut names: Vec<_> = fs::read_dir(&pinned)?
                .map(|entry| Ok(entry?.file_name()))
                .collect::<Result<_>>()?;
            names.sort();
            Ok(names)
        };
        let before = names()?;

        fs::remove_file(pinned.join("flows_udp4"))?;
        says(&guard, "another program has removed maps from it")?;
        ensure!(names()? == before, "{flags:?}: {:?}", names()?);

        fs::remove_dir_all(guard.pins())?;
        guarded_again(&guard, host, "vg")?;
        says(&guard, "vg: guarded again")?;
        ensure!(names()? == before, "{flags:?}: {:?}", names()?);
        works(&lab.topology, &lab.listener, "vg")?;
        guard.expect([(PassKnownFlow, 1)], || {
            talk.speak()?;
            ensure!(talk.hears(PATIENCE), "{flags:?}: a flow is lost");
            Ok(())
        })?;
        // It is all there is to take over.
        guard.kill()?;
        ensure!(
            lab.scan(10)? == 0,
            "{flags:?}: unsolicited packets are delivered"
        );
        guard.start_again(&flags)?;
        guard.expect([(PassKnownFlow, 1)], || {
            talk.speak()?;
            ensure!(talk.hears(PATIENCE), "{flags:?}: a flow is lost");
            Ok(())
        })?;
        ensure!(guard.end()?.success(), "{flags:?}: {}", guard.said());
        ensure!(lab.hears(1)?, "{flags:?}: it still guards");
    }
    Ok(())
}

/// The kernel frees a link after anyone who held it last, and until then the program is attached.
#[test]
fn f16_a_link_that_is_being_freed_is_waited_for() -> Result<()> {
    // https://github.com/torvalds/linux/commit/e420bed02507
    if Kernel::new(6, 6).is_missing("TCX") {
        return Ok(());
    }
    for hook in ["auto", "tcx"] {
        let lab = Lab::new()?;
        let guard = lab.guard(&["--egress-hook", hook])?;
        let pinned = folder(&guard)?;
        let link = fs::read_dir(&pinned)?
            .map(|entry| Ok(entry?.path()))
            .find(|path: &Result<PathBuf>| match path {
                Ok(path) => path.to_string_lossy().ends_with("-egress"),
                Err(_) => true,
            })
            .context("no link is pinned")??;
        let held = open_pin(&link)?;
        fs::remove_file(&link)?;
        says(&guard, "another program has taken off")?;
        thread::sleep(Duration::from_millis(300));
        drop(held);
        guarded_again(&guard, &lab.topology.guarded, "vg")?;
        let said = guard.said();
        ensure!(!said.contains("has no TCX"), "{hook}: {said}");
        ensure!(!said.contains("not guarded"), "{hook}: {said}");
        works(&lab.topology, &lab.listener, "vg")?;
    }
    Ok(())
}

/// A guard of another network namespace, with its pins beside those of `host`.
fn beside(host: &Host, other: &Direct) -> Result<Child> {
    let mut run = other.guarded.command(build::binary());
    run.args(["run", "--iface", "vg", "--pin-dir"])
        .arg(host.pins())
        .arg("--control-socket")
        .arg(host.files().join("beside.sock"))
        .stdin(Stdio::null())
        .stderr(fs::File::create(host.files().join("beside.log"))?);
    let child = run.spawn()?;
    beside_says(host, "guarding vg")?;
    Ok(child)
}

/// Waits until the guard of the other namespace has said so.
fn beside_says(host: &Host, part: &str) -> Result<()> {
    let since = Instant::now();
    let said = || fs::read_to_string(host.files().join("beside.log"));
    while !said()?.contains(part) {
        ensure!(since.elapsed() < START, "no {part}: {}", said()?);
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

#[test]
fn f16_what_is_pinned_for_a_namespace_that_is_gone_is_removed() -> Result<()> {
    let pins = |host: &Host| fs::read_dir(host.pins()).map_or(0, Iterator::count);
    for detach in [false, true] {
        let (host, other) = (Host::new()?, Direct::new()?);
        let shown = host.pins().display().to_string();
        let check = || {
            host.attempt(&["check", "--iface", "vg", "--pin-dir", &shown])
                .output()
        };
        let mut first = beside(&host, &other)?;
        // Its interface is gone, but it waits for it.
        other.guarded.ip("link del vg")?;
        beside_says(&host, "vg: is gone")?;
        host.run(&[]).keeps_guarding()?.stop()?;
        ensure!(pins(&host) == 1, "taken from a guard that runs");
        other.connect()?;
        beside_says(&host, "vg: guarded again")?;
        first.kill()?;
        first.wait()?;
        // It is in force without its daemon.
        host.run(&[]).keeps_guarding()?.stop()?;
        ensure!(pins(&host) == 1, "taken from a guard that is in force");
        let (_, printed) = check()?;
        ensure!(!printed.contains("are gone"), "{printed}");

        drop(other);
        let since = Instant::now();
        while !check()?.1.contains("are gone, a run removes it") {
            ensure!(since.elapsed() < START, "{}", check()?.1);
        }
        if detach {
            let (code, printed) = host.attempt(&["detach", "--pin-dir", &shown]).output()?;
            ensure!(
                code == Some(0) && printed.contains("interfaces are gone"),
                "{printed}"
            );
        } else {
            host.run(&[])
                .says("network namespace or interfaces are gone")?
                .stop()?;
        }
        ensure!(pins(&host) == 0, "{} are left", pins(&host));
        let _ = fs::remove_dir(host.pins());
        let _ = fs::remove_file(host.files().join("beside.sock"));
        host.require_clean()?;
    }
    Ok(())
}

#[test]
fn f11_a_bpffs_that_goes_with_the_guard_is_named() -> Result<()> {
    const MOUNTED: &str = "mount -t bpf bpf /sys/fs/bpf && exec \"$0\" \"$@\"";
    const SAID: &str = "in a bpffs for this mount namespace alone";

    let host = Host::new()?;
    let daemon = host.run(&[]).keeps_guarding()?;
    ensure!(!daemon.said().contains(SAID), "{}", daemon.said());
    daemon.stop()?;
    let bpffs = || Mutation::path("/sys/fs/bpf");
    host.run(&[])
        .with(Mutation::Unmounted(bpffs()))
        .says(SAID)?
        .stop()?;
    let unshared = ["-m", "sh", "-c", MOUNTED];
    host.run_by("/usr/bin/unshare", &unshared)
        .says(SAID)?
        .stop()?;
    let check = ["check", "--iface", "vg"];
    let (_, printed) = host.attempt(&check).output()?;
    ensure!(!printed.contains(SAID), "{printed}");
    let (code, printed) = host
        .attempt(&check)
        .with(Mutation::Unmounted(bpffs()))
        .output()?;
    ensure!(code == Some(0) && printed.contains(SAID), "{printed}");
    Ok(())
}

/// The limit of a memory cgroup is that of the guard, maps and all.
#[test]
fn f11_a_memory_cgroup_that_is_too_small_is_named() -> Result<()> {
    let host = Host::new()?;
    // limit in MiB, exit code, what is said
    for (limit, code, said) in [
        (256, 0, "a run would guard"),
        (80, 0, "a run would guard"),
        (64, 69, "a start 42.0 MiB besides"),
        (48, 69, "MiB are available in the memory cgroup "),
        (32, 69, "a start takes 50.0 MiB even with the smallest maps"),
    ] {
        // Each has its own: what the trial of another has used is given back only in a while.
        let Some(group) = Group::new()? else {
            eprintln!("skipped: no memory cgroup can be made here");
            return Ok(());
        };
        group.limit(limit)?;
        let into = format!(
            "echo $$ > {} && exec \"$0\" \"$@\"",
            group.0.join("cgroup.procs").display()
        );
        let (ended, printed) = host
            .attempt_with("/bin/sh".as_ref(), &["-c", &into])
            .flags(&[build::binary()])
            .flags(&["check", "--iface", "vg"])
            .output()?;
        ensure!(
            ended == Some(code) && printed.contains(said),
            "{limit} MiB: {ended:?}: {printed}"
        );
    }
    Ok(())
}

/// A memory cgroup of this test's own.
struct Group(PathBuf);

impl Group {
    /// None where this process may not make one.
    fn new() -> Result<Option<Self>> {
        for (root, file) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            if let Ok(group) = scratch::folder_in(Path::new(root)) {
                let group = Self(group.keep());
                if group.0.join(file).exists() {
                    return Ok(Some(group));
                }
            }
        }
        Ok(None)
    }

    fn limit(&self, mebibytes: u64) -> Result<()> {
        let bytes = (mebibytes << 20).to_string();
        let file = ["memory.limit_in_bytes", "memory.max"]
            .map(|file| self.0.join(file))
            .into_iter()
            .find(|file| file.exists())
            .context("no limit")?;
        fs::write(&file, bytes).with_context(|| format!("write {}", file.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Whatever is pinned under a name is only read as what this build lays out there.
#[test]
fn a_map_is_opened_as_what_it_is() -> Result<()> {
    let lab = Lab::new()?;
    let guard = lab.guard(&[])?;
    let pinned = folder(&guard)?;
    let map = |name: &str| Ok::<_, anyhow::Error>(MapData::from_pin(pinned.join(name))?);
    ensure!(HashMap::<FlowKeyV4, Flow>::new(map("flows_udp4")?).is_ok());
    ensure!(HashMap::<FlowKeyV6, Flow>::new(map("flows_udp4")?).is_err());
    ensure!(HashMap::<FlowKeyV4, u32>::new(map("flows_udp4")?).is_err());
    // Of a map for each processor, more is written than one value.
    ensure!(HashMap::<u32, u64>::new(map("tallies")?).is_err());

    let namespace = lab.topology.guarded.run(namespace::name)?;
    let maps = FlowMap::open_all(&Pins::new(guard.pins(), &namespace))?;
    let ends = |text: &str| text.parse::<SocketAddr>();
    let entry = FlowEntry {
        transport: Transport::Udp,
        local: ends("[fd09::2]:40000")?,
        remote: ends("[fd09::1]:53")?,
        flow: Flow::new(Phase::Datagram, 1),
    };
    for map in maps {
        let taken = map.family == Family::Ipv6;
        ensure!(map.insert(&entry).is_ok() == taken, "{:?}", map.family);
    }
    Ok(())
}
