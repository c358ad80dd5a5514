//! Starts without a privilege, or on a system that lacks something: what must be refused is, in one
//! line, and everything else guards. What is there and not needed any more is given up.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{
    bad_input::{Capability, Host, Mutation},
    build,
    capabilities::{self, Capabilities},
    kernel::Kernel,
    metrics,
};

const BPFFS: &str = "/sys/fs/bpf";

#[test]
fn missing_privileges() -> Result<()> {
    use Capability::{Bpf, NetAdmin, Perfmon, SysAdmin};

    let host = Host::new()?;
    // missing                   what is said
    let table: [(&[Capability], &[&str]); 3] = [
        (&[NetAdmin], &["CAP_NET_ADMIN missing", "; run as root"]),
        (&[Bpf, SysAdmin], &["CAP_BPF missing", "; run as root"]),
        (
            &[NetAdmin, Bpf, SysAdmin],
            &["CAP_NET_ADMIN and CAP_BPF missing", "; run as root"],
        ),
    ];
    for (missing, said) in table {
        host.run(&[])
            .with(Mutation::Without(missing.to_vec()))
            .is_refused(77, said)?;
    }

    // Each of the two implies the other here, and old kernels know but one of them.
    host.run(&[]).with(Mutation::Without(vec![Bpf])).guards()?;
    host.run(&[])
        .with(Mutation::Without(vec![SysAdmin]))
        .guards()?;
    // What it needs is up to the kernel; if it cannot, it says so and leaves nothing.
    let bare = || {
        host.run(&[])
            .with(Mutation::Without(vec![Perfmon, SysAdmin]))
    };
    if bare().guards().is_err() {
        bare().is_refused(
            77,
            &[
                "Permission denied",
                "; run as root, or grant CAP_PERFMON too",
            ],
        )?;
    }
    Ok(())
}

#[test]
fn nobody_may_not() -> Result<()> {
    let host = Host::new()?;
    // The build's own folders may be closed to others.
    let binary = host.files().join("portguard");
    fs::copy(build::binary(), &binary)?;
    let nobody = Mutation::Nobody;
    host.attempt_with(&binary, &["run", "--iface", "vg"])
        .with(nobody)
        .is_refused(77, &["CAP_NET_ADMIN and CAP_BPF missing", "; run as root"])?;

    let config = host.write("portguard.toml", "iface = [\"vg\"]\n")?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
    let shown = config.display().to_string();
    host.attempt_with(&binary, &["run", "--config", &shown])
        .with(Mutation::Nobody)
        .is_refused(
            78,
            &["Permission denied", "; give --config a readable file"],
        )?;
    host.attempt_with(&binary, &["detach"])
        .with(Mutation::Nobody)
        .is_refused(77, &["CAP_NET_ADMIN and CAP_BPF missing"])
}

#[test]
fn little_locked_memory() -> Result<()> {
    let host = Host::new()?;
    host.run(&[]).with(Mutation::Memlock(65_536)).guards()?;
    // Older kernels charge the maps to it, and only this capability lifts it.
    if Kernel::new(5, 11) > Kernel::running() {
        return host
            .run(&[])
            .with(Mutation::Without(vec![Capability::SysResource]))
            .with(Mutation::Memlock(65_536))
            .is_refused(77, &["refuses to create the maps", "LimitMEMLOCK=infinity"]);
    }
    host.run(&[])
        .with(Mutation::Without(vec![Capability::SysResource]))
        .with(Mutation::Memlock(65_536))
        .guards()
}

#[test]
fn a_bpffs_that_is_missing_or_read_only() -> Result<()> {
    let host = Host::new()?;
    let path = || Mutation::path(BPFFS);
    host.run(&[]).with(Mutation::Unmounted(path())).guards()?;
    host.run(&[])
        .with(Mutation::Unmounted(path()))
        .with(Mutation::Without(vec![Capability::SysAdmin]))
        .is_refused(
            77,
            &[
                "bpffs is not mounted, and cannot be",
                "; have root run `mount -t bpf",
            ],
        )?;
    host.run(&[])
        .with(Mutation::Hidden(path()))
        .is_refused(69, &["not on bpffs", "; give --pin-dir a folder"])?;
    host.run(&[])
        .with(Mutation::ReadOnly(path()))
        .is_refused(69, &["mounted read-only", "; mount bpffs for writing"])
}

#[test]
fn a_kernel_that_shows_no_btf() -> Result<()> {
    let host = Host::new()?;
    host.run(&[])
        .with(Mutation::Hidden(Mutation::path("/sys/kernel/btf")))
        .guards()
}

/// Exactly these, wherever a process can have them.
fn nothing_but(kept: &[Capability]) -> Capabilities {
    let kept = kept.iter().fold(0, |kept, power| kept | power.bit());
    Capabilities {
        effective: kept,
        permitted: kept,
        inheritable: 0,
        bounding: kept,
        ambient: 0,
        no_new: true,
    }
}

#[test]
fn what_is_not_needed_any_more_is_given_up() -> Result<()> {
    use Capability::{Bpf, DacReadSearch, NetAdmin, SetPcap, SysAdmin, SysPtrace};

    let host = Host::new()?;
    // Everything there is to give up is there: in all sets, by anyone who starts it.
    let (_, before) = host
        .attempt_with("/bin/cat".as_ref(), &["/proc/self/status"])
        .with(Mutation::Ambient)
        .output()?;
    ensure!(!before.contains("CapAmb:\t0000000000000000"), "{before}");
    ensure!(!before.contains("CapInh:\t0000000000000000"), "{before}");
    ensure!(before.contains("NoNewPrivs:\t0"), "{before}");

    // missing at the start, kept in the end, whether that limits programs that are run, too
    let table: [(&[Capability], [Capability; 2], bool); 4] = [
        (&[], [NetAdmin, Bpf], true),
        // What implies the one that is missing.
        (&[Bpf], [NetAdmin, SysAdmin], true),
        (&[SysAdmin], [NetAdmin, Bpf], true),
        // The limit can only be set with this one.
        (&[SetPcap], [NetAdmin, Bpf], false),
    ];
    for (missing, kept, limits) in table {
        let daemon = host
            .run(&[])
            .with(Mutation::Without(missing.to_vec()))
            .with(Mutation::Ambient)
            .keeps_guarding()?;
        // The threads that work aside, too.
        let deadline = Instant::now() + Duration::from_secs(10);
        let threads = loop {
            metrics::scrape(&host.topology.guarded)?;
            let threads = Capabilities::of_threads(daemon.pid())?;
            if threads.len() > 1 {
                break threads;
            }
            ensure!(Instant::now() < deadline, "it has one thread");
            thread::sleep(Duration::from_millis(5));
        };
        let names = capabilities::children(daemon.pid());
        ensure!(names.len() == 1, "{missing:?}: it has started {names:?}");
        let apart = Capabilities::of_threads(names[0])?;
        for (threads, kept) in [(&threads, kept), (&apart, [SysPtrace, DacReadSearch])] {
            let mut due = nothing_but(&kept);
            for capabilities in threads {
                if !limits {
                    due.bounding = capabilities.bounding;
                }
                ensure!(
                    *capabilities == due,
                    "{missing:?}: {capabilities:x?}, not {due:x?}"
                );
            }
        }
        daemon.stop()?;
        host.require_clean()?;
        ensure!(
            !capabilities::runs(names[0]),
            "{missing:?}: {names:?} is left"
        );
    }
    Ok(())
}

/// What the unit for systemd grants is enough, and all that is not kept can be given up.
#[test]
fn the_unit_grants_enough() -> Result<()> {
    const UNIT: &str = include_str!("../../packaging/portguard.service");

    let granted = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .context("the unit limits no capabilities")?;
    let granted = granted
        .split_whitespace()
        .map(|name| name.trim_start_matches("CAP_").to_lowercase());
    let set = granted.fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
    let host = Host::new()?;
    let words = ["--bounding-set", &set, "--no-new-privs", "--"];
    ensure!(UNIT.contains("\nLimitMEMLOCK=infinity\n"));
    let mut attempt = host.run_by("/usr/bin/setpriv", &words);
    if Kernel::running() < Kernel::new(5, 11) {
        // Maps are locked memory there. Elsewhere the unit's word changes nothing, and only some may
        // give it.
        attempt = attempt.with(Mutation::Memlock(u64::MAX));
    }
    let daemon = attempt.keeps_guarding()?;
    let kept = nothing_but(&[Capability::NetAdmin, Capability::Bpf]);
    for capabilities in Capabilities::of_threads(daemon.pid())? {
        ensure!(capabilities == kept, "{capabilities:x?}, not {kept:x?}");
    }
    for process in capabilities::children(daemon.pid()) {
        let kept = nothing_but(&[Capability::SysPtrace, Capability::DacReadSearch]);
        ensure!(Capabilities::of_threads(process)? == [kept], "{process}");
    }
    daemon.stop()?;
    host.require_clean()
}

#[test]
fn a_crash_leaves_no_process() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.run(&[]).keeps_guarding()?;
    let names = capabilities::children(daemon.pid());
    ensure!(names.len() == 1, "it has started {names:?}");
    daemon.kill()?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while capabilities::runs(names[0]) {
        ensure!(Instant::now() < deadline, "{names:?} is left");
        thread::sleep(Duration::from_millis(5));
    }
    host.attempt(&["detach", "--pin-dir"])
        .flags(&[host.pins()])
        .output()?;
    host.run(&[]).guards()
}
