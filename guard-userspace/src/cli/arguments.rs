//! The command line.

use std::{error::Error, path::PathBuf};

use clap::{
    Args, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use clap_complete::Shell;

use crate::{
    cli::{
        flows::FlowsView,
        harden::{PortList, SYSCTL_FOLDER},
    },
    config::{CONTROL_SOCKET, PIN_DIR, RunSettings},
    host::range::PortRange,
};

/// Drops unsolicited packets to this host's ephemeral ports, before the network stack sees them
#[derive(Clone, Debug, Parser)]
#[command(name = "portguard", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What is wrong with a command line, in one line, when `error` says that something is. What was
/// asked for, such as help, has as many lines as it takes.
pub fn complaint(error: &clap::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => return None,
        _ => {}
    }

    if let Some(said) = foreign(error).or_else(|| bad_value(error)) {
        return Some(said);
    }

    // Paragraphs: what is wrong, tips, how the command is used, where to find more.
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(|paragraph| {
        let lines: Vec<_> = paragraph.lines().map(str::trim).collect();
        lines.join(" ").trim().to_owned()
    });
    let wrong = paragraphs.next().unwrap_or_default();
    let likely = similar(error);
    let tips: Vec<_> = paragraphs
        .filter_map(|paragraph| paragraph.strip_prefix("tip: ").map(str::to_owned))
        .filter(|tip| likely || !tip.contains("similar"))
        .collect();
    let remedy = if tips.is_empty() {
        "see --help".to_owned()
    } else {
        tips.join(", ")
    };

    Some(format!(
        "{}; {remedy}",
        wrong.strip_prefix("error: ").unwrap_or(&wrong)
    ))
}

/// Flags that other programs have, and what does the same here.
const FOREIGN: [(&[&str], &str); 6] = [
    (
        &["--verbose", "-v", "-vv", "--debug"],
        "--log-level debug says more",
    ),
    (&["--quiet", "-q"], "--log-level warning says less"),
    (
        &["--interface", "--dev", "--device", "--nic", "-i"],
        "--iface names an interface",
    ),
    (
        &["--dry-run", "-n", "--check"],
        "portguard check takes the flags of run and attaches nothing",
    ),
    (
        &["--port", "--ports", "-p"],
        "--range names the ports to guard",
    ),
    (
        &["--allow", "--open"],
        "--expose opens a port, --trust lets a network reach all",
    ),
];

/// What is said about a flag of another program's, if it is one.
fn foreign(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let given = text(error, ContextKind::InvalidArg)?;
    let (_, advice) = FOREIGN
        .iter()
        .find(|(flags, _)| flags.contains(&given.as_str()))?;

    Some(format!("unexpected argument '{given}' found; {advice}"))
}

/// What is said about a value that cannot be read. The cause names what is wrong in it.
fn bad_value(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::ValueValidation {
        return None;
    }
    let flag = text(error, ContextKind::InvalidArg)?;
    let cause = error.source()?.to_string();
    let remedy = if cause.contains("; ") {
        ""
    } else {
        "; see --help"
    };

    Some(format!("{flag}: {cause}{remedy}"))
}

/// Whether what is suggested in the place of something unknown may have been meant.
fn similar(error: &clap::Error) -> bool {
    let pairs = [
        (ContextKind::InvalidArg, ContextKind::SuggestedArg),
        (
            ContextKind::InvalidSubcommand,
            ContextKind::SuggestedSubcommand,
        ),
        (ContextKind::InvalidValue, ContextKind::SuggestedValue),
    ];

    pairs.into_iter().any(|(given, suggested)| {
        let Some(given) = text(error, given) else {
            return false;
        };
        text(error, suggested)
            .is_some_and(|suggested| distance(&given, &suggested) <= 1 + given.len() / 6)
    })
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

/// How many letters must be put in, taken out or replaced to make one of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, wanted) in other.chars().enumerate() {
            let replaced = diagonal + usize::from(letter != wanted);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }

    row.last().copied().unwrap_or_default()
}

/// What the binary can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Guard interfaces until SIGTERM or SIGINT
    Run(RunFlags),
    /// Show what a running guard guards and has counted
    Status(StatusFlags),
    /// Show the flows a running guard knows
    Flows(FlowsFlags),
    /// Say what a run would do here, without attaching anything
    Check(CheckFlags),
    /// Have a running guard read its configuration file again
    Reload(ReloadFlags),
    /// Remove what a killed or kept guard has left in force
    Detach(DetachFlags),
    /// Narrow the kernel's port range and reserve ports, now and at every boot
    Harden(HardenFlags),
    /// Say what others can reach in the port range, and what weakens the guard
    Audit(AuditFlags),
    /// Show how much of the port range is in use, towards whom, by whom, and when it runs out
    Ports(PortsFlags),
    /// Print what has a shell complete command lines of portguard
    Completions(CompletionsFlags),
    /// Print the man page, or write one of each command
    Man(ManFlags),
}

/// The flags of a run.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct RunFlags {
    /// TOML file with a key for every flag here; flags win over it, `portguard reload` has it read again
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What the flags say.
    #[command(flatten)]
    pub layer: RunSettings,
}

/// The flags of a check: those of the run that is checked, and how to print.
#[derive(Clone, Debug, Args)]
pub struct CheckFlags {
    /// The run that is checked.
    #[command(flatten)]
    pub run: RunFlags,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The flags of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusFlags {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Print it again every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub watch: Option<u16>,

    /// Socket of the running guard
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
    pub control_socket: PathBuf,
}

/// The flags of `flows`.
#[derive(Clone, Debug, Args)]
pub struct FlowsFlags {
    /// Which are shown, and how.
    #[command(flatten)]
    pub view: FlowsView,

    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Socket of the running guard
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
    pub control_socket: PathBuf,
}

/// The flags of `reload`.
#[derive(Clone, Debug, Args)]
pub struct ReloadFlags {
    /// Socket of the running guard
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
    pub control_socket: PathBuf,
}

/// The flags of `detach`.
#[derive(Clone, Debug, Args)]
pub struct DetachFlags {
    /// Folder the guard was run with
    #[arg(long, value_name = "DIR", default_value = PIN_DIR)]
    pub pin_dir: PathBuf,
}

/// The flags of `harden`.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("change").required(true).args(["range", "revert"])))]
pub struct HardenFlags {
    /// The new range
    #[arg(long, value_name = "FIRST-LAST")]
    pub range: Option<PortRange>,

    /// Ports that the kernel shall not hand out, such as 8080,9000-9010
    #[arg(long, value_name = "PORTS", conflicts_with = "revert")]
    pub reserve: Option<PortList>,

    /// Say what would be done, and change nothing
    #[arg(long, conflicts_with = "revert")]
    pub dry_run: bool,

    /// Put the former values back, and remove the file
    #[arg(long)]
    pub revert: bool,

    /// Go on although live sockets would fall out of the range, or another program has changed the
    /// values since
    #[arg(long)]
    pub force: bool,

    /// Folder that keeps the values over a boot
    #[arg(long, value_name = "DIR", default_value = SYSCTL_FOLDER)]
    pub sysctl_dir: PathBuf,

    /// Socket of the running guard
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
    pub control_socket: PathBuf,
}

/// The flags of `audit`.
#[derive(Clone, Debug, Args)]
pub struct AuditFlags {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Exit with 1 above this score; a high finding counts 10, a medium one 3, a low one 1
    #[arg(long, value_name = "SCORE", default_value_t = 9)]
    pub threshold: u32,

    /// Socket of the running guard
    #[arg(long, value_name = "PATH", default_value = CONTROL_SOCKET)]
    pub control_socket: PathBuf,
}

/// The flags of `ports`.
#[derive(Clone, Debug, Args)]
pub struct PortsFlags {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// Watch for so long how fast ports are taken
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub seconds: u16,
}

/// The flags of `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionsFlags {
    /// The shell
    pub shell: Shell,
}

/// The flags of `man`.
#[derive(Clone, Debug, Args)]
pub struct ManFlags {
    /// Folder to write a page of each command to
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_command_line_is_told_in_one_line() {
        // words                 what is said
        let table = [
            (
                "run --ifce eth0",
                "unexpected argument '--ifce' found; a similar argument exists: '--iface'",
            ),
            (
                "run --range 9-1",
                "--range <FIRST-LAST>: range 9-1 is empty; write the lower port first",
            ),
            (
                "run --mode of",
                "invalid value 'of' for '--mode <MODE>' [possible values: enforce, monitor]; \
                 see --help",
            ),
            ("protect", "unrecognized subcommand 'protect'; see --help"),
            (
                "run --verbose",
                "unexpected argument '--verbose' found; --log-level debug says more",
            ),
            (
                "run --interface eth0",
                "unexpected argument '--interface' found; --iface names an interface",
            ),
            (
                "run --exhume",
                "unexpected argument '--exhume' found; see --help",
            ),
            (
                "run --max-flow 1024",
                "unexpected argument '--max-flow' found; a similar argument exists: '--max-flows'",
            ),
            (
                "run --unrecorded 0",
                "--unrecorded <PORT>: 0 is no port; ports are 1 to 65535",
            ),
            (
                "run --expose tcp/45000",
                "--expose <PORT[-PORT]/tcp|udp>: \"tcp/45000\" begins with the protocol; write \
                 45000/tcp",
            ),
            (
                "run --range 32768:60999",
                "--range <FIRST-LAST>: \"32768:60999\" is no range; write 32768-60999",
            ),
        ];
        for (line, said) in table {
            let words = ["portguard"].into_iter().chain(line.split_whitespace());
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(complaint(&error).as_deref(), Some(said), "{line}");
        }
        for line in ["--help", "--version", ""] {
            let words = ["portguard"].into_iter().chain(line.split_whitespace());
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(complaint(&error), None, "{line}");
        }
    }

    #[test]
    fn exit_codes_of_command_lines() {
        // words                                    exit code, none when it parses
        let table = [
            ("run --iface eth0", None),
            ("run --iface eth0 --keep-attached --no-rescue=false", None),
            ("run --iface eth0 --unrecorded 4789 --unrecorded 8472", None),
            ("run", None),
            ("check --iface eth0 --range 1-2 --json", None),
            ("status --json --control-socket /x", None),
            ("flows", None),
            (
                "flows --protocol tcp --port 40000-41000 --sort idle --limit 5 --json",
                None,
            ),
            ("flows --limit -1", Some(2)),
            ("status --watch", None),
            ("status --watch 10 --json", None),
            ("status --watch 0", Some(2)),
            ("reload --control-socket /x", None),
            ("reload --json", Some(2)),
            ("detach --pin-dir /x", None),
            (
                "harden --range 40000-45000 --reserve 41000,42000-42010 --dry-run",
                None,
            ),
            ("harden --revert --force", None),
            ("audit --json --threshold 0", None),
            ("audit --threshold -1", Some(2)),
            ("harden", Some(2)),
            ("harden --range 9-1", Some(2)),
            ("harden --range 1-2 --revert", Some(2)),
            ("harden --revert --reserve 5", Some(2)),
            ("harden --range 1-2 --reserve x", Some(2)),
            ("ports --json --seconds 5", None),
            ("ports --seconds 0", Some(2)),
            ("completions bash", None),
            ("completions csh", Some(2)),
            ("man", None),
            ("man /x", None),
            ("--version", Some(0)),
            ("run --help", Some(0)),
            ("", Some(2)),
            ("guard", Some(2)),
            ("run eth0", Some(2)),
            ("run --iface", Some(2)),
            ("run --no-such-flag", Some(2)),
            ("run --range 9-1", Some(2)),
            ("run --mode off", Some(2)),
            ("run --max-flows 100000", Some(2)),
            ("run --expose 2222", Some(2)),
            ("run --timeout udp=0", Some(2)),
            ("run --unrecorded 0", Some(2)),
            ("run --trust 10.0.0.1/8", Some(2)),
            ("run --metrics-listen 9750", Some(2)),
            ("run --mode enforce --mode monitor", Some(2)),
        ];
        for (line, code) in table {
            let parsed =
                Cli::try_parse_from(["portguard"].into_iter().chain(line.split_whitespace()));
            assert_eq!(parsed.err().map(|error| error.exit_code()), code, "{line}");
        }
    }
}
