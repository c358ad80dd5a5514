//! Interfaces that are not there when the guard starts, and names that an interface goes by besides.

use std::{
    ffi::OsStr,
    io,
    os::unix::{ffi::OsStrExt, net::UnixDatagram},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    bad_input::Host,
    bpffs, build,
    guard::Guard,
    metrics,
    netns::{Direct, Namespace},
    scratch::Scratch,
    wire::{Listener, QUIET},
};

use super::{
    Lab, PATIENCE, PORT, attachments, hooks,
    interfaces::{guarded_again, works},
};

/// More than an interface's own name can be.
const ALTNAME: &str = "uplink-of-the-second-rack";

/// Waits until all interfaces are guarded, by the guard's word.
fn healthy(host: &Namespace, guard: &Guard) -> Result<()> {
    let since = Instant::now();
    while metrics::get(host, "/healthz")?.0 != 200 {
        ensure!(since.elapsed() < PATIENCE, "{}", guard.said());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Gives an interface another name, which costs it its IPv6 addresses.
fn rename(host: &Namespace, from: &str, to: &str) -> Result<()> {
    host.ip(&format!("link set {from} down"))?;
    host.ip(&format!("link set {from} name {to}"))?;
    host.ip(&format!("link set {to} up"))?;
    host.ip(&format!("addr replace fd09::2/64 dev {to} nodad"))?;
    let since = Instant::now();
    while !host.is_running(to)? {
        ensure!(since.elapsed() < PATIENCE, "the link does not come up");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// As many as one guard serves, but for one.
const MANY: usize = 31;

/// The flags that name interfaces, and the names.
fn named(many: usize) -> (Vec<String>, Vec<String>) {
    let names: Vec<_> = (0..many).map(|number| format!("m{number}")).collect();
    let flags = names
        .iter()
        .flat_map(|name| ["--iface".to_owned(), name.clone()]);

    (flags.collect(), names)
}

/// How much of a processor a process has used.
fn used(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// Whether a process has a say in what SIGTERM does.
fn catches_sigterm(process: u32) -> Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap_or_default().trim(), 16)?;
    Ok(caught & 1 << (libc::SIGTERM - 1) != 0)
}

/// Their programs are loaded when the others are guarded.
#[test]
fn f10_those_that_are_missing_keep_no_other_waiting() -> Result<()> {
    let lab = Lab::new()?;
    let host = &lab.topology.guarded;
    let alone = Guard::start(host, "vg", &[])?;
    let due = used(alone.pid())?;
    ensure!(alone.stop()?.success());

    let (flags, _) = named(MANY);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let guard = Guard::start_waiting(host, "vg", &flags)?;
    let took = used(guard.pid())?;
    ensure!(lab.scan(10)? == 0, "unsolicited packets are delivered");
    ensure!(
        took < due * 5,
        "it took {took:?} of a processor, and {due:?} without them"
    );
    ensure!(guard.stop()?.success(), "a bad end");
    Ok(())
}

/// A signal need not wait for programs that are not loaded yet, neither of interfaces that are missing
/// nor of those that are there; and leaves nothing.
#[test]
fn a_start_of_many_interfaces_ends_when_it_is_told_to() -> Result<()> {
    let lab = Lab::new()?;
    let host = &lab.topology.guarded;
    let (flags, names) = named(MANY);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    for there in [false, true] {
        if there {
            for name in &names {
                host.ip(&format!("link add {name} type veth peer name {name}-o"))?;
                host.ip(&format!("link set {name} up"))?;
            }
        }
        let pins = bpffs::Folder::new()?;
        let files = Scratch::new()?;
        let mut used_up = Vec::new();
        for wait in [0, 300, 900] {
            let mut child = host
                .command(build::binary())
                .args(["run", "--iface", "vg"])
                .args(&flags)
                .arg("--pin-dir")
                .arg(pins.path())
                .arg("--control-socket")
                .arg(files.file("control.sock"))
                .spawn()?;
            let since = Instant::now();
            while !catches_sigterm(child.id())? {
                ensure!(since.elapsed() < PATIENCE, "it has not begun");
                thread::sleep(Duration::from_millis(2));
            }
            thread::sleep(Duration::from_millis(wait));
            let before = used(child.id())?;
            // SAFETY: no memory is involved, and the process is this test's own child, which has not
            // been waited for.
            unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
            let since = Instant::now();
            let mut after = before;
            let status = loop {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                after = used(child.id()).unwrap_or(after);
                ensure!(since.elapsed() < PATIENCE * 24, "it goes on");
                thread::sleep(Duration::from_millis(2));
            };
            ensure!(status.success(), "{there}, {wait}: {status}");
            used_up.push(after - before);
            ensure!(
                hooks::xdp(host, "vg")?.is_none(),
                "{there}, {wait}: XDP is left"
            );
            ensure!(
                hooks::egress(host, "vg")? == 0,
                "{there}, {wait}: egress is left"
            );
            // The daemon removes its own folder when it ends.
            let left = std::fs::read_dir(pins.path()).map_or(0, Iterator::count);
            ensure!(left == 0, "{there}, {wait}: {left} pins are left");
        }
        // Of a processor, as others may keep it busy.
        let most = used_up.iter().max();
        ensure!(most < Some(&Duration::from_secs(1)), "{there}: {used_up:?}");
    }
    Ok(())
}

#[test]
fn f10_those_that_are_there_are_guarded_while_one_is_missing() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let host = &lab.topology.guarded;
        let flags = [&flags[..], &["--iface", "late", "--egress-iface", ALTNAME]].concat();
        let mut guard = Guard::start_waiting(host, "vg", &flags)?;
        ensure!(
            lab.scan(10)? == 0,
            "{flags:?}: unsolicited packets are delivered"
        );
        works(&lab.topology, &lab.listener, "vg")?;
        for missing in ["late", ALTNAME] {
            let said = format!("warning: {missing}: no such interface, waiting for it; interfaces");
            let times = guard.said().matches(&said).count();
            ensure!(times == 1, "{flags:?}: {times} times: {}", guard.said());
        }
        let (code, _) = metrics::get(host, "/healthz")?;
        ensure!(code == 503, "{flags:?}: {code}");

        host.ip("link add late type veth peer name early")?;
        host.ip(&format!("link property add dev early altname {ALTNAME}"))?;
        healthy(host, &guard)?;
        ensure!(hooks::xdp(host, "late")?.is_some(), "{flags:?}: no XDP");
        for recorded in ["late", "early"] {
            ensure!(hooks::egress(host, recorded)? == 1, "{flags:?}: {recorded}");
        }
        ensure!(hooks::xdp(host, "early")?.is_none(), "{flags:?}: guarded");
        let said = guard.said();
        for part in [
            "late: is there now",
            "late: guarded",
            &format!("{ALTNAME}: is there now, called early"),
            "early: recorded",
        ] {
            ensure!(said.matches(part).count() == 1, "{flags:?}: {part}: {said}");
        }
        ensure!(guard.end()?.success(), "{flags:?}: {}", guard.said());
        ensure!(hooks::egress(host, "late")? == 0, "{flags:?}: left");
        ensure!(hooks::xdp(host, "late")?.is_none(), "{flags:?}: left");
    }
    Ok(())
}

/// What `systemctl status` shows is what is in force.
#[test]
fn the_service_manager_is_told_what_is_in_force() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let files = Scratch::new()?;
    let place = files.file("manager");
    let manager = UnixDatagram::bind(&place)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let guard = Guard::start_with(host, topology.interface(), &[], |daemon| {
        daemon.env("NOTIFY_SOCKET", &place);
    })?;
    let hears = |state: &str| -> Result<()> {
        let mut message = [0; 1024];
        let told = || {
            let length = manager.recv(&mut message)?;
            io::Result::Ok(String::from_utf8_lossy(&message[..length]).into_owned())
        };
        let told = std::iter::repeat_with(told).find(|told| match told {
            Ok(told) => told.contains(&format!("STATUS={state}")),
            Err(_) => true,
        });
        let heard = matches!(told, Some(Ok(_)));
        ensure!(heard, "{state} is not told: {}", guard.said());
        Ok(())
    };
    hears("guarding vg, ports 32768-60999")?;
    host.ip("link del vg")?;
    hears("guarding nothing, ports 32768-60999; waiting for vg")?;
    topology.connect()?;
    hears("guarding vg, ports 32768-60999")?;
    host.sysctl("net/ipv4/ip_local_port_range", "40000 50000")?;
    hears("guarding vg, ports 40000-50000")?;
    Ok(())
}

/// At boot there may be none yet, and they come under one name to get another.
#[test]
fn f10_a_guard_without_any_interface_waits_for_it() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let host = &lab.topology.guarded;
        rename(host, "vg", "boot0")?;
        let guard = Guard::start_waiting(host, "vg", &flags)?;
        ensure!(lab.hears(1)?, "{flags:?}: who guards?");
        let (code, _) = metrics::get(host, "/healthz")?;
        ensure!(code == 503, "{flags:?}: {code}");
        ensure!(!guard.said().contains("guarding"), "{}", guard.said());

        rename(host, "boot0", "vg")?;
        guarded_again(&guard, host, "vg")?;
        healthy(host, &guard)?;
        works(&lab.topology, &lab.listener, "vg")?;
        ensure!(guard.stop()?.success(), "{flags:?}: a bad end");
    }
    Ok(())
}

#[test]
fn f10_an_interface_is_guarded_by_another_name_of_its() -> Result<()> {
    for flags in attachments() {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        let listener = Listener::new(host, PORT)?;
        host.ip(&format!("link property add dev vg altname {ALTNAME}"))?;
        let mut guard = Guard::start(host, ALTNAME, &flags)?;
        works(&topology, &listener, "vg")?;
        guarded_again(&guard, host, "vg")?;
        // Made anew, it is known by that name alone.
        rename(host, "vg", "other")?;
        guarded_again(&guard, host, "other")?;
        host.ip("link del other")?;
        topology.connect()?;
        thread::sleep(QUIET);
        ensure!(hooks::xdp(host, "vg")?.is_none(), "{flags:?}: not asked to");
        host.ip(&format!("link property add dev vg altname {ALTNAME}"))?;
        guarded_again(&guard, host, "vg")?;
        works(&topology, &listener, "vg")?;
        // A restart adopts what a killed one has left under the name.
        guard.kill()?;
        guard.start_again(&flags)?;
        works(&topology, &listener, "vg")?;
        ensure!(guard.stop()?.success(), "{flags:?}: a bad end");
        ensure!(hooks::xdp(host, "vg")?.is_none(), "{flags:?}: left");
    }
    Ok(())
}

#[test]
fn two_names_of_one_interface_are_refused() -> Result<()> {
    let host = Host::new()?;
    host.topology
        .guarded
        .ip(&format!("link property add dev vg altname {ALTNAME}"))?;
    let said = format!("vg and {ALTNAME} are one interface, vg");
    for flag in ["--iface", "--egress-iface"] {
        host.run(&[flag, ALTNAME])
            .is_refused(78, &[&said, "; name each interface once"])?;
        let (code, printed) = host
            .attempt(&["check", "--iface", "vg", flag, ALTNAME])
            .output()?;
        ensure!(
            code == Some(78) && printed.contains(&said),
            "{code:?}: {printed}"
        );
    }
    let file = host.write("guard.toml", &format!("iface = [\"{ALTNAME}\", \"eth7\"]"))?;
    let shown = file.display().to_string();
    let (code, printed) = host.attempt(&["check", "--config", &shown]).output()?;
    ensure!(code == Some(0), "{code:?}: {printed}");
    for part in [
        format!("ok       interface {ALTNAME} vg, veth, up"),
        "note     interface eth7 no such interface, a run waits for it; interfaces here: ".into(),
    ] {
        ensure!(printed.contains(&part), "{part}: {printed}");
    }
    Ok(())
}

/// The kernel takes any bytes for a name. One that is no text costs an interface nothing, and neither does that
/// of another.
#[test]
fn f10_a_name_that_is_no_text_costs_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let host = &lab.topology.guarded;
    let call = |words: &[&str], name: &[u8]| -> Result<()> {
        let status = host
            .command("ip")
            .args(words)
            .arg(OsStr::from_bytes(name))
            .status()?;
        ensure!(status.success(), "ip {words:?}: {status}");
        Ok(())
    };
    call(
        &["link", "property", "add", "dev", "vg", "altname"],
        b"x\xff",
    )?;
    host.ip("link add other type veth peer name other-end")?;
    call(&["link", "set", "other", "name"], b"y\xff")?;
    let guard = lab.guard(&[])?;
    ensure!(lab.scan(10)? == 0, "unsolicited packets are delivered");
    host.ip("link add another type veth peer name another-end")?;
    call(&["link", "set", "another", "name"], b"z\xff")?;
    call(
        &["link", "property", "add", "dev", "vg", "altname"],
        b"\xfex",
    )?;
    // Longer than it takes to look at the interfaces twice.
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        ensure!(
            lab.scan(1)? == 0,
            "unsolicited packets are delivered: {}",
            guard.said()
        );
        thread::sleep(Duration::from_millis(100));
    }
    healthy(host, &guard)?;
    works(&lab.topology, &lab.listener, "vg")?;
    ensure!(!guard.said().contains("is gone"), "{}", guard.said());
    ensure!(!guard.said().contains("decode"), "{}", guard.said());
    Ok(())
}
