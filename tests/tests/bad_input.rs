//! Bad input: one clear line with the remedy, the contract's exit code, and nothing left behind.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use anyhow::{Result, ensure};
use guard_tests::bad_input::{Host, Mutation};

const BPFFS: &str = "/sys/fs/bpf";
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

#[test]
fn interfaces_that_cannot_be_guarded() -> Result<()> {
    let host = Host::new()?;
    host.topology.guarded.ip("tuntap add tun7 mode tun")?;
    host.topology.guarded.ip("link add ifb7 type ifb")?;
    // interface  what is said
    let table = [
        ("lo", ["lo: loopback interface", "; guard the interface"]),
        (
            "ifb7",
            [
                "ifb7: takes frames of other interfaces",
                "; guard the interface that its frames come in by",
            ],
        ),
        (
            "tun7",
            [
                "tun7: not an Ethernet interface",
                "; guard the Ethernet interface",
            ],
        ),
    ];
    for (interface, said) in table {
        let words = ["run", "--iface", interface];
        host.attempt(&words).is_refused(69, &said)?;
        host.run(&["--egress-iface", interface])
            .is_refused(69, &said)?;
    }
    Ok(())
}

#[test]
fn wrong_words() -> Result<()> {
    let host = Host::new()?;
    let long = format!("/{}", "x".repeat(120));
    // words                                        what is said
    let table: [(&[&str], &[&str]); 18] = [
        (
            &["run", "--expose", "tcp/45000"],
            &["--expose", "\"tcp/45000\"", "; write 45000/tcp"],
        ),
        (
            &["run", "--expose", "1/tcp,2/tcp"],
            &["\"1/tcp,2/tcp\" is more than one", "1/tcp and 2/tcp"],
        ),
        (
            &["run", "--unrecorded", "0"],
            &["0 is no port", "; ports are 1 to 65535"],
        ),
        (
            &["run", "--verbose"],
            &["unexpected argument '--verbose'", "; --log-level debug"],
        ),
        (
            &["run", "--metrics-listen", "guard.example:9750"],
            &[
                "\"guard.example\" is no address",
                "; write that of this host",
            ],
        ),
        (
            &["run", "--iface", ""],
            &["\"\": no name of an interface", "; give --iface"],
        ),
        (&["run"], &["no interface to guard", "; give --iface"]),
        (
            &["run", "vg"],
            &["unexpected argument 'vg'", "; see --help"],
        ),
        (
            &["run", "--ifce", "vg"],
            &["'--ifce'", "; a similar argument exists: '--iface'"],
        ),
        (
            &["run", "--iface", "vg", "--iface", "vg"],
            &["vg: named twice", "; name each interface once"],
        ),
        (
            &["run", "--range", "61000-32768"],
            &["61000-32768 is empty", "; write the lower port first"],
        ),
        (
            &["run", "--range", "0-70000"],
            &["\"70000\" is no port", "; ports are 1 to 65535"],
        ),
        (
            &["run", "--expose", "2222"],
            &["names no protocol", "; write 2222/tcp"],
        ),
        (
            &["run", "--max-flows", "1000"],
            &["out of bounds", "; write a power of two"],
        ),
        (
            &["run", "--trust", "10.0.0.1/8"],
            &["has host bits", "; write 10.0.0.0/8"],
        ),
        (
            &["run", "--metrics-listen", "9750"],
            &["--metrics-listen", "\"9750\"", "; write 127.0.0.1:9750"],
        ),
        (
            &["run", "--iface", "vg", "--pin-dir", "pins"],
            &["pins: no absolute path", "; give --pin-dir"],
        ),
        (
            &["run", "--iface", "vg", "--control-socket", &long],
            &["longer than 107 bytes", "; give --control-socket"],
        ),
    ];
    for (words, said) in table {
        host.attempt(words).is_refused(2, said)?;
    }
    Ok(())
}

#[test]
fn wrong_configuration_files() -> Result<()> {
    let host = Host::new()?;
    let missing = host.files().join("missing.toml");
    // text                                 what is said behind the file's name
    let table: [(&str, &[&str]); 5] = [
        (
            "mode = \"enforce\"\niface = [\n",
            &[":2:10: unclosed array"],
        ),
        (
            "mode = \"enforce\"\nifce = [\"vg\"]\n",
            &[":2:1: unknown key `ifce`", "`iface`"],
        ),
        (
            "mode = \"off\"\n",
            &[":1:8: unknown word `off`", "`enforce` or `monitor`"],
        ),
        (
            "range = \"9-1\"\n",
            &[":1:9: range 9-1 is empty", "; write the lower port first"],
        ),
        (
            "mode = \"enforce\"\n",
            &[": no interface to guard", "; give --iface"],
        ),
    ];
    for (text, said) in table {
        let file = host.write("portguard.toml", text)?;
        let shown = file.display().to_string();
        let said: Vec<_> = [shown.as_str()]
            .into_iter()
            .chain(said.iter().copied())
            .collect();
        host.attempt(&["run", "--config", &shown])
            .is_refused(78, &said)?;
        let (code, printed) = host.attempt(&["check", "--config", &shown]).output()?;
        ensure!(code == Some(78), "check: {code:?}: {printed}");
        ensure!(printed.contains(said[1]), "check: {printed}");
    }
    let pipe = host.files().join("pipe.toml");
    ensure!(Command::new("mkfifo").arg(&pipe).status()?.success());
    for unreadable in [
        missing.as_path(),
        host.files(),
        &pipe,
        Path::new("/dev/zero"),
    ] {
        let shown = unreadable.display().to_string();
        host.run(&["--config", &shown])
            .is_refused(78, &[&shown, "; give --config a readable file"])?;
    }
    Ok(())
}

#[test]
fn places_to_pin() -> Result<()> {
    let host = Host::new()?;
    let run = |pins: &str| {
        host.attempt(&["run", "--iface", "vg", "--pin-dir", pins])
            .flags(&[
                "--control-socket".as_ref(),
                host.files().join("control.sock").as_os_str(),
            ])
    };
    let pins = host.pins();
    let shown = pins.display().to_string();
    let missing = "not on bpffs";
    run("/tmp/portguard-test-nowhere").is_refused(69, &[missing, "; give --pin-dir a folder"])?;
    run(&format!("{BPFFS}/../bpf/x")).is_refused(2, &["with `..`", "; give --pin-dir a path"])?;
    run(&format!("{shown}.d")).is_refused(
        69,
        &["cannot be created", "; give --pin-dir a name without dots"],
    )?;

    std::os::unix::fs::symlink(host.files(), &pins)?;
    run(&shown).ends(69, &[missing, "; give --pin-dir a folder"])?;
    fs::remove_file(&pins)?;

    for (mode, owner, said) in [
        (0o777, 0, "others can write into it"),
        (0o700, 65_534, "belongs to the user with id 65534"),
    ] {
        fs::create_dir(&pins)?;
        fs::set_permissions(&pins, fs::Permissions::from_mode(mode))?;
        chown(&pins, Some(owner), None)?;
        run(&shown).ends(77, &[&shown, said, "; remove it"])?;
        run(&format!("{shown}/below"))
            .ends(77, &["others can put folders of theirs", "; close it"])?;
        fs::remove_dir(&pins)?;
    }
    host.require_clean()
}

#[test]
fn sysctls_that_say_nothing_useful() -> Result<()> {
    let host = Host::new()?;
    let junk = host.write("junk", "32768 ninety\n")?;
    let junk = || Mutation::path(junk.display().to_string());
    for sysctl in [RANGE, RESERVED] {
        host.run(&[])
            .with(Mutation::Replaced(junk(), Mutation::path(sysctl)))
            .is_refused(
                1,
                &[
                    sysctl,
                    "cannot make sense of \"32768 ninety\"",
                    "; write it again",
                ],
            )?;
    }
    host.run(&[])
        .with(Mutation::Hidden(Mutation::path("/proc/sys/net/ipv4")))
        .is_refused(1, &[RANGE, "cannot be read", "; show the process"])
}

#[test]
fn a_sysctl_that_turns_bad_leaves_the_ports_in_force() -> Result<()> {
    let host = Host::new()?;
    let range = host.write("range", "40000 41000\n")?;
    let shown = Mutation::path(range.display().to_string());
    let mut daemon = host
        .run(&[])
        .with(Mutation::Replaced(shown, Mutation::path(RANGE)))
        .keeps_guarding()?;
    ensure!(
        daemon.said().contains("ports 40000-41000"),
        "{}",
        daemon.said()
    );
    fs::write(&range, "junk\n")?;
    daemon.wait_until_it_says("the ports in force stay: ")?;
    let socket = host.files().join("control.sock").display().to_string();
    let (code, status) = host
        .attempt(&["status", "--control-socket", &socket])
        .output()?;
    ensure!(
        code == Some(0) && status.contains("ports 40000-41000"),
        "{status}"
    );
    fs::write(&range, "42000 43000\n")?;
    daemon.wait_until_it_says("port range 40000-41000 -> 42000-43000")?;
    daemon.stop()?;
    host.require_clean()
}
