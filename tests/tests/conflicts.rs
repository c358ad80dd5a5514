//! What is there already: other programs, other daemons, and what a killed daemon has left.

use std::{
    fs::{self, DirBuilder, File},
    net::TcpListener,
    os::unix::{
        fs::{DirBuilderExt, chown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use guard_tests::{
    bad_input::{Host, Mutation},
    build, metrics,
    netns::Direct,
};
use guard_userspace::host::namespace;

#[test]
fn a_foreign_program_is_named_and_left() -> Result<()> {
    let host = Host::new()?;
    for (mode, shown) in [
        (XdpMode::Driver, "native mode"),
        (XdpMode::Skb, "generic mode"),
    ] {
        let mut foreign = Ebpf::load_file(build::object())?;
        let program: &mut Xdp = foreign
            .program_mut("ingress")
            .expect("is there")
            .try_into()?;
        program.load()?;
        let id = program.info()?.id();
        let link = host.topology.guarded.run(|| program.attach("vg", mode))?;
        let taken = format!("vg: taken by the XDP program ingress (id {id}, {shown})");
        let untouched = || -> Result<()> {
            let link = host.show("ip", &["-d", "link", "show", "dev", "vg"])?;
            ensure!(link.contains(&format!("prog/xdp id {id} ")), "{link}");
            ensure!(!host.records()? && !host.pins().exists(), "something stays");
            Ok(())
        };
        for mode in ["auto", "native", "generic"] {
            host.run(&["--xdp-mode", mode])
                .ends(69, &[&taken, "; stop whatever attached it"])?;
            untouched()?;
        }
        let (code, printed) = host.attempt(&["check", "--iface", "vg"]).output()?;
        ensure!(code == Some(69) && printed.contains(&taken), "{printed}");
        let (code, printed) = host.attempt(&["detach"]).output()?;
        ensure!(
            code == Some(0) && printed == "nothing to detach\n",
            "{printed}"
        );
        untouched()?;
        host.topology.guarded.run(|| program.detach(link))?;
    }
    host.require_clean()
}

/// The kernel takes a filter for what is sent on the qdisc `ingress` too, and runs it on what is
/// received: unsolicited senders would open flows, and no answer would come in.
#[test]
fn a_qdisc_in_the_place_of_clsact_is_named_and_left() -> Result<()> {
    let host = Host::new()?;
    host.show("tc", &["qdisc", "add", "dev", "vg", "ingress"])?;
    let before = host.show("tc", &["qdisc", "show", "dev", "vg"])?;
    let taken = "vg: cannot record what is sent: its qdisc ingress is in the place of clsact";
    host.run(&["--egress-hook", "clsact"])
        .ends(69, &[taken, "; tc qdisc del dev vg ingress"])?;
    let check = ["check", "--iface", "vg", "--egress-hook", "clsact"];
    let (code, printed) = host.attempt(&check).output()?;
    ensure!(code == Some(69) && printed.contains(taken), "{printed}");
    let filters = host.show("tc", &["filter", "show", "dev", "vg", "ingress"])?;
    ensure!(filters.trim().is_empty(), "{filters}");
    let after = host.show("tc", &["qdisc", "show", "dev", "vg"])?;
    ensure!(before == after, "{before} became {after}");
    host.show("tc", &["qdisc", "del", "dev", "vg", "ingress"])?;
    host.require_clean()
}

#[test]
fn a_second_instance_names_the_first() -> Result<()> {
    let host = Host::new()?;
    let daemon = host.run(&[]).keeps_guarding()?;
    let before = host.show("ip", &["-d", "link", "show", "dev", "vg"])?;
    let first = format!("guarded by pid {} already", daemon.pid());
    let pins = host.pins().display().to_string();
    host.run(&[]).ends(69, &[&first, "; "])?;
    host.run(&["--max-flows", "1024", "--metrics-listen", "127.0.0.1:9751"])
        .ends(69, &[&first, "; "])?;
    host.attempt(&["detach", "--pin-dir", &pins])
        .ends(69, &[&first, "; stop it"])?;
    let (code, printed) = host.attempt(&["check", "--iface", "vg"]).output()?;
    ensure!(code == Some(69) && printed.contains(&first), "{printed}");
    let after = host.show("ip", &["-d", "link", "show", "dev", "vg"])?;
    ensure!(
        before == after && host.records()?,
        "{before} became {after}"
    );
    daemon.stop()?;
    host.require_clean()
}

/// As a daemon in a container holds it that has a `/run` of its own, and so another lock.
#[test]
fn a_folder_that_is_held_elsewhere_is_left() -> Result<()> {
    let host = Host::new()?;
    let namespace = host.topology.guarded.run(namespace::name)?;
    let folder = host.pins().join(namespace);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let held = File::open(&folder)?;
    held.try_lock()?;
    host.run(&[])
        .ends(69, &["held by a daemon that shares this folder"])?;
    drop(held);
    let daemon = host.run(&[]).keeps_guarding()?;
    let held = File::open(&folder)?.try_lock();
    ensure!(held.is_err(), "a guard does not hold its folder");
    daemon.stop()?;
    host.require_clean()
}

/// Any local user can listen on a port, so no guard depends on one.
#[test]
fn a_port_that_is_taken_keeps_nobody_from_guarding() -> Result<()> {
    let host = Host::new()?;
    let listener = host
        .topology
        .guarded
        .run(|| TcpListener::bind("127.0.0.1:9750"))?;
    let check = || {
        host.attempt(&["check", "--iface", "vg"])
            .output()
            .map(|(code, printed)| (code, printed.replace('\n', " ")))
    };
    let (code, printed) = check()?;
    ensure!(
        code == Some(0) && printed.contains("cannot serve metrics on 127.0.0.1:9750"),
        "{code:?}: {printed}"
    );
    let mut daemon = host.run(&[]).keeps_guarding()?;
    let said = "guarding without metrics on 127.0.0.1:9750";
    daemon.wait_until_it_says(said)?;
    ensure!(host.records()?, "it does not guard");
    let socket = host.files().join("control.sock").display().to_string();
    let status = || {
        let (code, printed) = host
            .attempt(&["status", "--control-socket", &socket])
            .output()?;
        ensure!(code == Some(0), "{code:?}: {printed}");
        Ok(printed)
    };
    let printed = status()?;
    ensure!(
        printed.contains("metrics   missing: cannot serve metrics"),
        "{printed}"
    );
    // It is tried again and again, and said once.
    thread::sleep(Duration::from_secs(5));
    ensure!(
        daemon.said().matches(said).count() == 1,
        "{}",
        daemon.said()
    );
    drop(listener);
    daemon.wait_until_it_says("metrics on 127.0.0.1:9750: served from now on")?;
    let (code, text) = metrics::get(&host.topology.guarded, "/healthz")?;
    ensure!(code == 200, "{code}: {text}");
    ensure!(!status()?.contains("missing"), "{}", status()?);
    daemon.stop()?;
    host.require_clean()
}

/// What another user has put in the place of the control socket, where others may.
#[test]
fn a_place_of_the_control_socket_that_is_anothers() -> Result<()> {
    const NOBODY: u32 = 65_534;
    let host = Host::new()?;
    let path = host.files().join("anothers.sock");
    let shown = path.display().to_string();
    let listener = UnixListener::bind(&path)?;
    chown(&path, Some(NOBODY), None)?;
    let attempt = host.attempt(&["run", "--iface", "vg", "--control-socket", &shown]);
    let mut daemon = attempt
        .flags(&["--pin-dir"])
        .flags(&[host.pins()])
        .keeps_guarding()?;
    daemon.wait_until_it_says("guarding without the control socket")?;
    drop(listener);
    fs::remove_file(&path)?;
    daemon.wait_until_it_says("served from now on")?;
    let (code, printed) = host
        .attempt(&["status", "--control-socket", &shown])
        .output()?;
    ensure!(code == Some(0), "{code:?}: {printed}");
    daemon.stop()?;
    host.require_clean()
}

/// A process that may open few files says so, whatever it is asked for.
#[test]
fn few_open_files_are_refused_with_the_remedy() -> Result<()> {
    let host = Host::new()?;
    for files in (5..=24).chain([32, 48, 64]) {
        for words in [
            &["run", "--iface", "vg"][..],
            &["check", "--iface", "vg"],
            &["status"],
            &["flows"],
            &["detach"],
        ] {
            let mut attempt = host.attempt(words).with(Mutation::Files(files));
            if words[0] == "run" || words[0] == "detach" {
                attempt = attempt.flags(&["--pin-dir"]).flags(&[host.pins()]);
            }
            let (code, said) = attempt.said()?;
            let row = || format!("{files} files, {words:?}: {code:?}: {said}");
            ensure!(!said.contains("panicked"), "{}", row());
            ensure!(code.is_some_and(|code| code != 101), "{}", row());
            if words[0] == "run" {
                let remedy = said.contains("; allow ") && said.contains("`ulimit -n ");
                ensure!(code == Some(69) && remedy, "{}", row());
                ensure!(said.lines().count() == 1, "{}", row());
            }
        }
    }
    host.require_clean()?;
    host.run(&[]).with(Mutation::Files(128)).guards()
}

/// A file that may grow no more, such as that of the log, ends nothing and no connection.
#[test]
fn a_log_that_may_grow_no_more_ends_nothing() -> Result<()> {
    const MOST: u64 = 2_000;

    let host = Host::new()?;
    let (code, said) = host
        .attempt(&["check", "--iface", "vg"])
        .with(Mutation::FileSize(0))
        .said()?;
    ensure!(code.is_some(), "a signal ends `check`: {said}");

    let daemon = host
        .run(&[])
        .with(Mutation::FileSize(MOST))
        .keeps_guarding()?;
    let socket = host.files().join("control.sock").display().to_string();
    let status = ["status", "--control-socket", &socket];
    for _ in 0..100 {
        // SAFETY: the process is this test's own, and has not been waited for.
        unsafe { libc::kill(daemon.pid() as libc::pid_t, libc::SIGHUP) };
        // Once it answers, it has read the signal.
        let (code, printed) = host.attempt(&status).output()?;
        ensure!(code == Some(0), "{code:?}: {printed}: {}", daemon.said());
    }
    let length = daemon.said().len() as u64;
    ensure!(length == MOST, "{length} bytes of log: {}", daemon.said());
    daemon.stop()?;
    host.require_clean()
}

/// How many files a run needs is known to `check`.
#[test]
fn check_knows_how_many_files_a_run_may_open() -> Result<()> {
    let host = Host::new()?;
    let ends = |command: &str, files: u64| -> Result<Option<i32>> {
        let pins = host.pins().display().to_string();
        let socket = host.files().join("control.sock").display().to_string();
        let words = [
            &[command, "--iface", "vg", "--pin-dir", &pins][..],
            &["--control-socket", &socket],
        ];
        let attempt = host.attempt(&words.concat()).with(Mutation::Files(files));
        if command == "check" {
            return Ok(attempt.output()?.0);
        }
        let mut daemon = attempt.starts()?;
        match daemon.wait_until_it_says("guarding vg") {
            Ok(()) => {
                daemon.stop()?;
                Ok(Some(0))
            }
            Err(_) => Ok(Some(if daemon.said().contains("; allow ") {
                69
            } else {
                1
            })),
        }
    };
    for files in [32, 64].into_iter().chain(76..=96) {
        let (check, run) = (ends("check", files)?, ends("run", files)?);
        ensure!(check == run, "{files} files: check {check:?}, run {run:?}");
    }
    ensure!(ends("run", 96)? == Some(0), "96 files are too few");
    ensure!(ends("check", 64)? == Some(69), "64 files are enough");
    host.require_clean()
}

/// `check` tries what a run makes for itself, and ends as the run does. It leaves nothing.
#[test]
fn check_tries_the_folders_that_a_run_makes() -> Result<()> {
    let host = Host::new()?;
    let socket = host.files().join("control.sock").display().to_string();
    let below = host.files().join("new/below/control.sock");
    let below = below.display().to_string();
    let dotted = format!("{}.dotted", host.pins().display());
    let pins = host.pins().display().to_string();
    let run = || Mutation::path("/run");
    // What is amiss, the control socket, the folder for pins, the code, what is said
    let table: [(Option<Mutation>, &str, &str, i32, &str); 5] = [
        (
            Some(Mutation::ReadOnly(run())),
            &socket,
            &pins,
            1,
            "/run/portguard",
        ),
        (
            Some(Mutation::Full(run())),
            &socket,
            &pins,
            1,
            "No space left",
        ),
        (
            None,
            "/proc/new/control.sock",
            &pins,
            1,
            "cannot make /proc/new",
        ),
        (
            None,
            &socket,
            &dotted,
            69,
            "; give --pin-dir a name without dots",
        ),
        (None, &below, &pins, 0, "a run would guard"),
    ];
    for (amiss, socket, pins, code, said) in table {
        let attempt = |command| {
            let words = [command, "--iface", "vg", "--pin-dir", pins];
            let attempt = host.attempt(&words).flags(&["--control-socket", socket]);
            match &amiss {
                Some(amiss) => attempt.with(amiss.clone()),
                None => attempt,
            }
        };
        let (ended, printed) = attempt("check").output()?;
        ensure!(ended == Some(code), "{said}: {ended:?}: {printed}");
        ensure!(printed.contains(said), "{said}: {printed}");
        ensure!(
            !host.files().join("new").exists(),
            "{said}: something is left"
        );
        host.require_clean()?;
        if code == 0 {
            attempt("run").guards()?;
        } else {
            attempt("run").is_refused(code, &[said])?;
        }
    }
    Ok(())
}

#[test]
fn servers_whose_place_is_taken() -> Result<()> {
    let host = Host::new()?;
    // A daemon of another namespace has the socket.
    let other = Direct::new()?;
    let daemon = host.run(&[]).keeps_guarding()?;
    let socket = host.files().join("control.sock").display().to_string();
    let mut second = other.guarded.command(build::binary());
    let second = second
        .args(["run", "--iface", "vg", "--control-socket", &socket])
        .output()?;
    let said = String::from_utf8_lossy(&second.stderr);
    let taken = format!("a daemon with pid {} answers here; stop it", daemon.pid());
    ensure!(
        second.status.code() == Some(69) && said.contains(&taken),
        "{said}"
    );
    ensure!(said.lines().count() == 1, "{said}");
    daemon.stop()?;

    let file = host.write("control", "")?;
    let shown = file.display().to_string();
    host.attempt(&["run", "--iface", "vg", "--control-socket", &shown])
        .is_refused(69, &["exists and is no socket", "; remove it"])
}

#[test]
fn what_a_killed_daemon_leaves() -> Result<()> {
    for hook in ["auto", "clsact"] {
        let host = Host::new()?;
        let pins = host.pins().display().to_string();
        let detach = || host.attempt(&["detach", "--pin-dir", &pins]).output();
        let leave = || host.run(&["--egress-hook", hook]).keeps_guarding()?.kill();

        leave()?;
        ensure!(host.records()?, "the guard ends with its daemon");
        // A start that fails early leaves in force what was.
        host.run(&["--egress-iface", "lo"])
            .ends(69, &["lo: loopback interface"])?;
        ensure!(host.records()?, "a failed start has detached the guard");
        host.run(&["--egress-hook", hook]).guards()?;

        leave()?;
        let (code, printed) = detach()?;
        ensure!(code == Some(0), "{printed}");
        ensure!(
            printed.starts_with("detached vg (XDP, egress)\nremoved the maps in "),
            "{printed}"
        );
        fs::remove_file(host.files().join("control.sock"))?;
        host.require_clean()?;
        let (code, printed) = detach()?;
        ensure!(
            code == Some(0) && printed == "nothing to detach\n",
            "{printed}"
        );
    }
    Ok(())
}

#[test]
fn detach_minds_its_own_namespace() -> Result<()> {
    let (host, other) = (Host::new()?, Host::new()?);
    host.run(&[]).keeps_guarding()?.kill()?;
    let pins = host.pins().display().to_string();
    let detach = ["detach", "--pin-dir", &pins];
    let (code, printed) = other.attempt(&detach).output()?;
    ensure!(
        code == Some(0) && printed == "nothing to detach\n",
        "{printed}"
    );
    ensure!(host.records()?, "another namespace's guard is gone");

    // As another build would have left it.
    let namespace = only_entry(&host.pins())?;
    fs::rename(only_entry(&namespace)?, namespace.join("v0"))?;
    let (code, printed) = host.attempt(&detach).output()?;
    ensure!(
        code == Some(0) && printed.starts_with("detached vg (XDP, egress)\n"),
        "{printed}"
    );
    fs::remove_file(host.files().join("control.sock"))?;
    host.require_clean()
}

#[test]
fn check_says_what_a_run_would_do_and_does_nothing() -> Result<()> {
    let host = Host::new()?;
    let check = |flags: &[&str]| {
        host.attempt(&["check", "--iface", "vg", "--json"])
            .flags(flags)
            .output()
    };
    let (code, printed) = check(&[])?;
    ensure!(
        code == Some(0) && printed.contains("\"would_run\": true"),
        "{printed}"
    );
    ensure!(printed.contains("\"schema_version\": 1"), "{printed}");
    host.require_clean()?;

    let listener = host
        .topology
        .guarded
        .run(|| TcpListener::bind("0.0.0.0:40000"))?;
    for (policy, expected) in [("auto", 0), ("refuse", 78)] {
        let (code, printed) = check(&["--listeners", policy])?;
        ensure!(code == Some(expected), "{policy}: {code:?}: {printed}");
        ensure!(
            printed.contains("--expose 40000/tcp"),
            "{policy}: {printed}"
        );
    }
    drop(listener);
    host.require_clean()
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let entry = fs::read_dir(folder)?.next();

    Ok(entry
        .with_context(|| format!("{} is empty", folder.display()))??
        .path())
}
