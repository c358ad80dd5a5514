//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::settings::{CONTROL_SOCKET, Layer, PIN_DIR};

/// Drops what strangers send to this host's ephemeral ports, before the network stack sees it
#[derive(Clone, Debug, Parser)]
#[command(name = "portguard", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Guard interfaces until SIGTERM or SIGINT
    Run(RunFlags),
    /// Show what a running guard guards and has counted
    Status(AskFlags),
    /// Show the flows a running guard knows
    Flows(AskFlags),
    /// Say what a run would do here, without attaching anything
    Check(CheckFlags),
    /// Remove what a killed or kept guard has left in force
    Detach(DetachFlags),
}

/// The flags of a run.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct RunFlags {
    /// TOML file with a key for every flag here; flags win over it, SIGHUP reads it anew
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// What the flags say.
    #[command(flatten)]
    pub layer: Layer,
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

/// The flags of commands that ask a running guard.
#[derive(Clone, Debug, Args)]
pub struct AskFlags {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
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
            ("detach --pin-dir /x", None),
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
