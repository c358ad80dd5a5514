//! What is logged, how it is told to the journal, and what is said about a guard that leaves much open.

use std::{fs, net::TcpStream};

use anyhow::{Context, Result, ensure};
use guard_tests::bad_input::Host;
use serde_json::Value;

/// The whole line that starts so.
fn line<'a>(said: &'a str, start: &str) -> Result<&'a str> {
    said.lines()
        .find(|line| line.starts_with(start))
        .with_context(|| format!("no {start:?}: {said}"))
}

#[test]
fn a_guard_that_drops_nothing_does_not_say_that_it_guards() -> Result<()> {
    let host = Host::new()?;
    let mut daemon = host
        .run(&["--xdp-mode", "native", "--mode", "monitor"])
        .says("monitoring vg (")?;
    ensure!(!daemon.said().contains("guarding"), "{}", daemon.said());
    ensure!(
        daemon.said().contains(": nothing is dropped\n"),
        "{}",
        daemon.said()
    );
    let socket = host.files().join("control.sock").display().to_string();
    let status = ["status", "--control-socket", &socket];
    let (_, printed) = host.attempt(&status).output()?;
    ensure!(printed.starts_with("monitoring vg ("), "{printed}");
    daemon.wait_until_it_says("monitoring")?;
    daemon.stop()?;

    let flags = [
        "--trust",
        "0.0.0.0/1",
        "--trust",
        "128.0.0.0/1",
        "--trust",
        "fd00::/8",
        "--expose",
        "22/tcp",
        "--range",
        "40000-40010",
        "--expose",
        "39000-41000/udp",
    ];
    let said = [
        "warning: trust names every IPv4 host",
        "warning: exposed 22/tcp: not in the range 40000-40010",
        "warning: every UDP port of 40000-40010 is exposed or reserved",
    ];
    let mut daemon = host.run(&flags).says("guarding vg")?;
    for part in said {
        daemon.wait_until_it_says(part)?;
    }
    let log = daemon.said();
    let start = line(&log, "guarding vg")?;
    let trusting = ", ports 40000-40010, trusting 0.0.0.0/1, 128.0.0.0/1, fd00::/8";
    ensure!(start.ends_with(trusting), "{start}");
    let (_, printed) = host.attempt(&status).output()?;
    ensure!(
        printed.contains("\ntrust     0.0.0.0/1 128.0.0.0/1 fd00::/8\n"),
        "{printed}"
    );
    let (_, printed) = host.attempt(&status).flags(&["--json"]).output()?;
    let status: Value = serde_json::from_str(&printed)?;
    ensure!(status["trust"][2] == "fd00::/8", "{printed}");
    daemon.stop()?;

    let (code, printed) = host
        .attempt(&["check", "--iface", "vg"])
        .flags(&flags)
        .output()?;
    ensure!(code == Some(0), "{printed}");
    for part in said {
        let part = part.replace("warning: ", "note     configuration  ");
        ensure!(printed.contains(&part), "{part}: {printed}");
    }
    host.require_clean()
}

#[test]
fn an_end_says_what_it_has_left() -> Result<()> {
    let host = Host::new()?;
    for (flags, left) in [
        (&[][..], "\nvg: detached (XDP, egress)\n"),
        (&["--keep-attached"], "\nvg: left in force (XDP, egress)"),
    ] {
        let daemon = host.run(flags).keeps_guarding()?;
        let log = daemon.log().to_owned();
        daemon.stop()?;
        let said = fs::read_to_string(log)?;
        let stopping = said.find("\nstopping: SIGTERM\n").context(said.clone())?;
        ensure!(said[stopping..].contains(left), "{said}");
    }
    host.run(&[]).guards()
}

#[test]
fn lines_are_json_and_few_where_that_is_asked_for() -> Result<()> {
    let host = Host::new()?;
    let file = host.write("guard.toml", "log-format = \"json\"\niface = [\"eth7\"]\n")?;
    let config = ["--config", &file.display().to_string()];
    // On a veth, the mode that is chosen else has a warning, and so has the hook before Linux 6.6.
    let native = ["--xdp-mode", "native", "--egress-hook", "clsact"];
    let daemon = host.run(&native).flags(&config).says("\"guarding vg")?;
    let log = daemon.log().to_owned();
    daemon.stop()?;
    let said = fs::read_to_string(log)?;
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).with_context(|| said.clone())?;
        let time = line["time"].as_str().unwrap_or_default();
        ensure!(time.ends_with('Z') && time.len() == 24, "{said}");
        ensure!(line["level"] == "info", "{said}");
        ensure!(line["message"].is_string(), "{said}");
    }

    for (flags, all) in [
        (&["--log-level", "error"][..], true),
        (
            &[
                "--xdp-mode",
                "native",
                "--egress-hook",
                "clsact",
                "--log-level",
                "warning",
                "--trust",
                "::/0",
            ],
            false,
        ),
    ] {
        let daemon = host.run(flags).starts()?;
        let answers = || {
            let connect = || TcpStream::connect("127.0.0.1:9750").is_ok();
            host.topology.guarded.run(connect)
        };
        while !answers() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let log = daemon.log().to_owned();
        daemon.stop()?;
        let said = fs::read_to_string(log)?;
        let others = said
            .lines()
            .filter(|line| !line.starts_with("warning: trust"));
        ensure!(
            others.count() == 0 && said.is_empty() == all,
            "{flags:?}: {said}"
        );
    }
    host.require_clean()
}

#[test]
fn the_journal_is_told_how_much_a_line_matters() -> Result<()> {
    const AS_THE_JOURNAL: &str =
        "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec \"$0\" \"$@\"";

    let host = Host::new()?;
    let daemon = host
        .run_by("/bin/sh", &["-c", AS_THE_JOURNAL])
        .flags(&["--trust", "::/0"])
        .says("<6>guarding vg")?;
    let log = daemon.log().to_owned();
    daemon.stop()?;
    let said = fs::read_to_string(log)?;
    for part in [
        "<6>existing flows: ",
        "<4>warning: trust names",
        "<6>stopping: SIGTERM",
    ] {
        line(&said, part)?;
    }
    host.run_by("/bin/sh", &["-c", AS_THE_JOURNAL])
        .flags(&["--egress-iface", "lo"])
        .is_refused(69, &["<3>lo: loopback interface"])
}
