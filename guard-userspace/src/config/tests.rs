use clap::Parser;
use guard_common::flow::timer::Timer;

use super::*;
use crate::base::failure::Exit;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    layer: ConfigLayer,
}

/// Flags given as one line of words.
fn flags(line: &str) -> ConfigLayer {
    Flags::try_parse_from(["portguard"].into_iter().chain(line.split_whitespace()))
        .expect(line)
        .layer
}

fn settings(line: &str, text: &str) -> Result<Settings, Failure> {
    let path = Path::new("guard.toml");

    Settings::merge(
        &flags(line),
        Some(&file::parse(text, "guard.toml")?),
        Some(path),
    )
}

#[test]
fn every_key_of_the_file() {
    let text = r#"
        iface = ["eth0", "eth1"]
        egress-iface = ["eth2"]
        mode = "monitor"
        xdp-mode = "generic"
        egress-hook = "clsact"
        allow-filter-in-front = true
        range = "1024-65535"
        max-flows = 1024
        expose = ["2222/tcp", "40000-40010/udp"]
        trust = ["192.0.2.0/24", "2001:db8::/32"]
        listeners = "refuse"
        udp-filter = "address"
        no-rescue = true
        unrecorded = [4500]
        metrics-listen = "[::1]:9000"
        control-socket = "/run/c.sock"
        pin-dir = "/sys/fs/bpf/other"
        log-level = "debug"
        log-format = "json"
        keep-attached = true
        adaptive-timeouts = "70-150"

        [timeout]
        tcp-syn = 1
        tcp-established = 2
        tcp-transitory = 3
        udp = 4
        udp-dns = 5
        multicast = 6
    "#;
    let line = "--iface eth0 --iface eth1 --egress-iface eth2 --mode monitor --xdp-mode generic \
        --egress-hook clsact --allow-filter-in-front --range 1024-65535 --max-flows 1024 --expose 2222/tcp \
        --expose 40000-40010/udp --trust 192.0.2.0/24 --trust 2001:db8::/32 --listeners refuse \
        --udp-filter address --no-rescue --unrecorded 4500 --metrics-listen [::1]:9000 \
        --control-socket /run/c.sock --pin-dir /sys/fs/bpf/other --keep-attached --log-level debug --log-format json \
        --timeout tcp-syn=1 --timeout tcp-established=2 --timeout tcp-transitory=3 \
        --timeout udp=4 --timeout udp-dns=5 --timeout multicast=6 --adaptive-timeouts 70-150";

    let from_file = settings("", text).expect("the file");
    let from_flags = settings(line, "").expect("the flags");
    assert_eq!(from_file, from_flags);

    let changes = settings("--iface eth7", "")
        .expect("defaults")
        .changes(&from_file);
    assert_eq!(
        (changes.reloadable.len(), changes.restart.len()),
        (14, 8),
        "all differ"
    );
}

#[test]
fn flags_win_over_the_file() {
    // flags                              file                                         differs from the flags alone
    let table = [
        ("--iface eth0 --mode enforce", "mode = 'monitor'", false),
        ("--iface eth0", "iface = ['eth1', 'eth2']", false),
        ("--iface eth0", "mode = 'monitor'", true),
        ("--iface eth0 --no-rescue=false", "no-rescue = true", false),
        ("--iface eth0 --expose 1/tcp", "expose = ['2/tcp']", false),
        ("--iface eth0 --timeout udp=5", "timeout.udp = 6", false),
        ("--iface eth0 --timeout udp=5", "timeout.udp-dns = 6", true),
        ("--iface eth0", "unrecorded = []", true),
        ("--iface eth0", "", false),
    ];
    for (line, text, differs) in table {
        let alone = Settings::merge(&flags(line), None, None).expect(line);
        let both = settings(line, text).expect(text);
        assert_eq!(alone != both, differs, "{line} over {text}");
    }
}

#[test]
fn the_last_of_two_timeouts_wins() {
    let settings = settings("--iface eth0 --timeout udp=5 --timeout udp=7", "").expect("flags");
    let seconds = |timer| settings.timeout.of(timer);
    assert_eq!(seconds(Timer::Udp), 7);
    assert_eq!(seconds(Timer::UdpDns), Timer::UdpDns.default_seconds());
}

#[test]
fn errors_say_where() {
    use Exit::{BadConfiguration, Usage};

    let crowd: String = (1..=33)
        .map(|number| format!("--iface i{number} "))
        .collect();
    let long = format!("--iface e --control-socket /{}", "x".repeat(107));
    // flags, file, exit code, start of the line
    let table = [
        (
            "",
            "iface = ['a']\nmood = 1",
            BadConfiguration,
            "guard.toml:2:1: unknown key `mood`",
        ),
        (
            "",
            "config = 'x'",
            BadConfiguration,
            "guard.toml:1:1: unknown key `config`",
        ),
        (
            "",
            "iface = 'a'",
            BadConfiguration,
            "guard.toml:1:9: \"a\" is no list; write iface = [\"a\"]",
        ),
        (
            "",
            "unrecorded = 4789",
            BadConfiguration,
            "guard.toml:1:14: 4789 is no list; write unrecorded = [4789]",
        ),
        (
            "",
            "iface = [5]",
            BadConfiguration,
            "guard.toml:1:10: 5 is no text; write it in quotes",
        ),
        (
            "",
            "expose = true",
            BadConfiguration,
            "guard.toml:1:10: true is no list; write expose = [ .. ]",
        ),
        (
            "",
            "no-rescue = 'yes'",
            BadConfiguration,
            "guard.toml:1:13: \"yes\" is neither true nor false; write no-rescue = true",
        ),
        (
            "",
            "timeout = 5",
            BadConfiguration,
            "guard.toml:1:11: 5 is no table; write [timeout] and a line for each of its keys",
        ),
        (
            "",
            "[timeout]\nudp = '5m'",
            BadConfiguration,
            "guard.toml:2:7: \"5m\" is no number that fits; write it in digits, without quotes",
        ),
        (
            "",
            "max-flows = '65536'",
            BadConfiguration,
            "guard.toml:1:13: \"65536\" is no number that fits; write it in digits",
        ),
        (
            "",
            "max-flows = 1.5",
            BadConfiguration,
            "guard.toml:1:13: 1.5 is no number that fits; write it in digits",
        ),
        (
            "",
            "mode = 5",
            BadConfiguration,
            "guard.toml:1:8: no text; write it in quotes",
        ),
        (
            "",
            "range = [1, 2]",
            BadConfiguration,
            "guard.toml:1:9: a list is no text; write it in quotes",
        ),
        (
            "",
            "pin-dir = 5",
            BadConfiguration,
            "guard.toml:1:11: 5 is no text; write it in quotes",
        ),
        (
            "",
            "metrics-listen = 9750",
            BadConfiguration,
            "guard.toml:1:18: 9750 is no text; write it in quotes",
        ),
        (
            "",
            "metrics-listen = '9750'",
            BadConfiguration,
            "guard.toml:1:18: \"9750\" names no address; write 127.0.0.1:9750",
        ),
        (
            "",
            "\n  mode = 'off'",
            BadConfiguration,
            "guard.toml:2:10: unknown word `off`, expected `enforce` or `monitor`",
        ),
        ("", "mode = ", BadConfiguration, "guard.toml:1:8: "),
        (
            "",
            "max-flows = 100000",
            BadConfiguration,
            "guard.toml:1:13: 100000 is no power of two",
        ),
        (
            "",
            "max-flows = -1",
            BadConfiguration,
            "guard.toml:1:13: -1 is no number that fits",
        ),
        (
            "",
            "range = '9-1'",
            BadConfiguration,
            "guard.toml:1:9: range 9-1 is empty",
        ),
        (
            "",
            "expose = ['1/tcp', '2']",
            BadConfiguration,
            "guard.toml:1:10: \"2\" names no protocol",
        ),
        (
            "",
            "trust = ['10.0.0.1/8']",
            BadConfiguration,
            "guard.toml:1:9: 10.0.0.1/8 has host bits",
        ),
        (
            "",
            "unrecorded = [0]",
            BadConfiguration,
            "guard.toml:1:14: 0 is no port; ports are 1 to 65535",
        ),
        (
            "",
            "[timeout]\nudp = 0",
            BadConfiguration,
            "guard.toml:2:7: 0 seconds are out of bounds",
        ),
        (
            "",
            "[timeout]\ntcp = 5",
            BadConfiguration,
            "guard.toml:2:1: unknown word `tcp`",
        ),
        (
            "",
            "mode = 'monitor'",
            BadConfiguration,
            "guard.toml: no interface to guard; give --iface",
        ),
        (
            "",
            "iface = ['a', 'a']",
            BadConfiguration,
            "guard.toml: a: named twice as iface",
        ),
        (
            "",
            "iface = ['a b']",
            BadConfiguration,
            "guard.toml: \"a b\": no name of an interface; give --iface",
        ),
        ("--iface a --iface a", "", Usage, "a: named twice as iface"),
        (
            "--iface a",
            "egress-iface = ['a']",
            Usage,
            "a: named as iface and as egress-iface",
        ),
        (
            &crowd,
            "",
            Usage,
            "33 interfaces: one guard serves 32; leave some",
        ),
        (&long, "", Usage, "/xxxxx"),
    ];
    for (line, text, code, start) in table {
        let failure = settings(line, text).expect_err(text);
        assert!(
            failure.to_string().starts_with(start),
            "{line} {text}: {failure}"
        );
        assert_eq!(failure.code, code, "{line} {text}: {failure}");
    }

    let none = Settings::merge(&ConfigLayer::default(), None, None).expect_err("no interface");
    assert_eq!(none.code, Usage, "{none}");
}

#[test]
fn what_is_no_file_is_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let long = folder.path().join("long.toml");
    std::fs::File::create(&long)
        .and_then(|file| file.set_len(2 << 30))
        .expect("a long file");
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).expect("a file");
    // path, what is said
    let table = [
        (Path::new("/dev/zero"), "/dev/zero: no regular file"),
        (Path::new("/proc/kmsg"), "/proc/kmsg: "),
        (folder.path(), ": a folder"),
        (
            &long,
            ": 2147483648 bytes, a configuration has 1048576 at most",
        ),
        (&binary, ": no text in UTF-8"),
    ];
    for (path, said) in table {
        let failure = Settings::load(&ConfigLayer::default(), Some(path)).expect_err("refused");
        assert_eq!(failure.code, Exit::BadConfiguration, "{failure}");
        assert!(failure.to_string().contains(said), "{failure}");
        assert_eq!(failure.advice(), Some("give --config a readable file"));
    }
}

#[test]
fn a_missing_file_is_named() {
    let failure = Settings::load(&ConfigLayer::default(), Some(Path::new("/no/such.toml")))
        .expect_err("no file");
    assert!(
        failure
            .to_string()
            .starts_with("/no/such.toml: No such file"),
        "{failure}"
    );
    assert_eq!(failure.code, Exit::BadConfiguration);
}

#[test]
fn there_is_room_for_so_many_trusted_prefixes_and_no_more() {
    let trust = |count: u32| {
        let prefixes = (0..count).map(|index| format!("'10.{}.{}.0/24'", index >> 8, index & 0xff));
        let prefixes: Vec<_> = prefixes.collect();
        settings(
            "--iface eth0",
            &format!("trust = [{}]", prefixes.join(", ")),
        )
    };
    assert_eq!(trust(16_384).expect("room").trust.len(), 16_384);
    let failure = trust(16_385).expect_err("no room");
    assert_eq!(failure.code, Exit::BadConfiguration, "{failure}");
    assert!(
        failure
            .to_string()
            .contains("16385 trusted prefixes: there is room for 16384"),
        "{failure}"
    );
}

#[test]
fn a_reload_applies_what_it_can() {
    let old = settings("--iface eth0", "").expect("old");
    let new = settings("--iface eth1 --mode monitor", "").expect("new");
    assert_eq!(
        old.changes(&new),
        Changes {
            reloadable: vec!["mode"],
            restart: vec!["iface"]
        }
    );
    assert!(old.changes(&old).is_empty());

    let merged = old.reloaded(&new);
    assert_eq!(
        (merged.mode, merged.iface.as_slice()),
        (Mode::Monitor, ["eth0".to_owned()].as_slice())
    );
}

#[test]
fn a_public_metrics_endpoint_exposes_itself() {
    let table = [
        ("127.0.0.1:40000", 0),
        ("[::1]:40000", 0),
        ("0.0.0.0:40000", 1),
        ("0.0.0.0:0", 0),
    ];
    for (address, exposed) in table {
        let settings =
            settings(&format!("--iface eth0 --metrics-listen {address}"), "").expect(address);
        assert_eq!(settings.exposures().count(), exposed, "{address}");
    }
}
