//! `ARCHITECTURE.md` names every map. `docs/reference.md` names every command, flag, key and exit code, with its values, its default
//! and when a reload puts it in force, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, ArgAction, Command, CommandFactory, Parser};
use guard_common::flow::timer::Timer;
use guard_userspace::{
    base::failure::Exit,
    bpf::pins::MAPS,
    cli::arguments::{self, Cli, RunFlags},
    config::{ConfigLayer, Settings},
};

const REFERENCE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md"));
const ARCHITECTURE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md"));
const EXAMPLE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../packaging/portguard.toml"
));

/// A run in which no setting has its default.
const NOTHING_BY_DEFAULT: &str = "portguard run --iface eth0 --egress-iface eth2 --mode monitor \
    --xdp-mode generic --egress-hook clsact --allow-filter-in-front --range 1024-65535 \
    --max-flows 1024 --expose 2222/tcp --trust 192.0.2.0/24 --listeners refuse \
    --udp-filter address --no-rescue --unrecorded 4500 --timeout udp=4 \
    --adaptive-timeouts 70-150 --metrics-listen [::1]:9000 --control-socket /run/c.sock \
    --pin-dir /sys/fs/bpf/other --log-level debug --log-format json --keep-attached";

/// The text below a heading of the second level, up to the next one.
fn section(heading: &str) -> &'static str {
    let start = format!("\n## {heading}\n");
    let (_, rest) = REFERENCE
        .split_once(&start)
        .unwrap_or_else(|| panic!("no section {heading}"));
    rest.split_once("\n## ")
        .map_or(rest, |(section, _)| section)
}

/// The cells of each row of the tables in a text whose first cell begins so, without backticks.
fn rows(text: &str, beginning: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter(|line| line.starts_with(&format!("| {beginning}")))
        .map(|line| {
            let line = line.replace("\\|", "\0");
            let cells = line.trim_matches('|').split('|');
            cells
                .map(|cell| cell.trim().replace('\0', "|").replace('`', ""))
                .collect()
        })
        .collect()
}

/// The flags of a command but `--help`.
fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|flag| !matches!(flag.get_action(), ArgAction::Help | ArgAction::HelpShort))
}

/// A flag that is on or off.
fn is_switch(flag: &Arg) -> bool {
    let values = flag.get_possible_values();
    !flag.get_action().takes_values() || values.iter().any(|value| value.get_name() == "true")
}

/// Such as `--mode enforce|monitor`, or `DIR` of what is told by its place alone.
fn spelled(flag: &Arg) -> String {
    let name = match flag.get_long() {
        Some(name) => format!("--{name} "),
        None => String::new(),
    };
    if is_switch(flag) {
        return name.trim_end().to_owned();
    }
    let words: Vec<_> = flag
        .get_possible_values()
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect();
    let value = if words.is_empty() {
        flag.get_value_names().expect("a value has a name")[0].to_string()
    } else {
        words.join("|")
    };
    format!("{name}{value}")
}

/// The default, which optional flags tell in their help alone.
fn default(flag: &Arg) -> String {
    if is_switch(flag) {
        return "off".to_owned();
    }
    if let Some(value) = flag.get_default_values().first() {
        return value.to_string_lossy().into_owned();
    }
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    help.split_once("[default: ")
        .and_then(|(_, rest)| rest.strip_suffix(']'))
        .unwrap_or_default()
        .to_owned()
}

/// Checks the table of a command against its flags, and returns its rows.
fn compare<'a>(name: &str, flags: impl Iterator<Item = &'a Arg>) -> Vec<Vec<String>> {
    let mut documented = rows(section(&format!("portguard {name}")), "`");
    // Timers are no flags, and have a name and a meaning alone.
    documented.retain(|row| row.len() > 2);
    let found: BTreeMap<_, _> = documented
        .iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let expected: BTreeMap<_, _> = flags.map(|flag| (spelled(flag), default(flag))).collect();
    assert_eq!(found, expected, "flags of {name} and their defaults");
    assert_eq!(documented.len(), found.len(), "{name} names a flag twice");
    for row in &documented {
        assert!(
            !row.last().expect("cells").is_empty(),
            "{row:?} says nothing"
        );
    }
    documented
}

fn command(name: &str) -> Command {
    Cli::command().find_subcommand(name).expect(name).clone()
}

#[test]
fn every_command_is_documented_and_no_other() {
    let commands: BTreeSet<_> = Cli::command()
        .get_subcommands()
        .map(|command| format!("portguard {}", command.get_name()))
        .filter(|name| name != "portguard help")
        .collect();
    let listed = rows(section("Commands"), "`portguard ");
    let listed: BTreeSet<_> = listed.into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(listed, commands);
    let sections: BTreeSet<_> = REFERENCE
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|heading| heading.starts_with("portguard "))
        .map(str::to_owned)
        .collect();
    assert_eq!(sections, commands);
}

#[test]
fn every_flag_is_documented_with_values_and_default() {
    for command in Cli::command().get_subcommands() {
        match command.get_name() {
            "help" => {}
            "check" => {
                let run = self::command("run");
                let of_run: BTreeSet<_> = flags(&run).map(spelled).collect();
                let all: BTreeSet<_> = flags(command).map(spelled).collect();
                assert!(all.is_superset(&of_run), "check takes the flags of run");
                let others = flags(command).filter(|flag| !of_run.contains(&spelled(flag)));
                compare("check", others);
            }
            name => {
                compare(name, flags(command));
            }
        }
    }
}

/// The settings of a command line.
fn settings(line: &str) -> Settings {
    let cli = Cli::try_parse_from(line.split_whitespace()).expect(line);
    let arguments::Command::Run(RunFlags {
        config: None,
        layer,
    }) = cli.command
    else {
        panic!("{line} is no run without a file");
    };
    Settings::load(&layer.0, None).expect(line)
}

#[test]
fn every_key_is_documented_with_what_a_reload_does() {
    let run = command("run");
    let mut documented = BTreeMap::new();
    for row in compare("run", flags(&run)) {
        let name = row[0].trim_start_matches("--");
        let name = name.split(' ').next().expect("a name").to_owned();
        documented.insert(name, row[2].clone());
    }
    assert_eq!(documented.remove("config").as_deref(), Some(""));

    let changes = settings("portguard run --iface eth7").changes(&settings(NOTHING_BY_DEFAULT));
    let expected: BTreeMap<String, String> = changes
        .reloadable
        .iter()
        .map(|key| ((*key).to_owned(), "reload".to_owned()))
        .chain(
            changes
                .restart
                .iter()
                .map(|key| ((*key).to_owned(), "restart".to_owned())),
        )
        .collect();
    assert_eq!(documented, expected);

    let keys = serde_json::to_value(settings(NOTHING_BY_DEFAULT)).expect("settings are JSON");
    let keys: BTreeSet<_> = keys.as_object().expect("keys").keys().cloned().collect();
    assert_eq!(documented.into_keys().collect::<BTreeSet<_>>(), keys);
    for key in keys {
        let shown = EXAMPLE.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{key} = ")) || line == format!("[{key}]")
        });
        assert!(shown, "packaging/portguard.toml does not show {key}");
    }
}

/// What is commented out there is the default, but for what is called an example.
#[test]
fn the_example_file_shows_the_defaults() {
    let mut text = "iface = [\"eth0\"]\n".to_owned();
    let mut example = false;
    for line in EXAMPLE.lines() {
        match line.strip_prefix("# ") {
            None => example = false,
            Some(line) if line.starts_with('[') || line.contains(" = ") => {
                if !example {
                    text.push_str(line);
                    text.push('\n');
                }
            }
            Some(words) => example |= words.contains("xample"),
        }
    }
    let keys = text.lines().count();
    assert!(keys > 20, "{keys} keys: {text}");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("portguard.toml");
    std::fs::write(&path, &text).expect("a file");
    let shown = Settings::load(&ConfigLayer::default(), Some(&path));
    assert_eq!(
        shown.expect("is sound"),
        settings("portguard run --iface eth0"),
        "{text}"
    );
}

#[test]
fn every_timer_is_documented_and_no_other() {
    let documented: Vec<_> = rows(section("portguard run"), "`")
        .into_iter()
        .map(|row| row[0].clone())
        .filter(|name| !name.starts_with("--"))
        .collect();
    assert_eq!(documented, Timer::NAMES);
}

#[test]
fn every_exit_code_is_documented_and_no_other() {
    let codes: Vec<u8> = (0..=u8::MAX)
        .filter(|&code| Exit::from_code(code) as u8 == code)
        .collect();
    let table = section("Exit codes");
    let documented: Vec<u8> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(documented, codes);
}

#[test]
fn every_map_is_described_and_no_other() {
    let (_, maps) = ARCHITECTURE.split_once("\n## Maps\n").expect("a section");
    let (maps, _) = maps.split_once("\n## ").expect("it ends");
    let described = maps
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next())
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.trim_matches('`'));
    let described: BTreeSet<_> = described.collect();
    assert_eq!(described, BTreeSet::from(MAPS));
}
