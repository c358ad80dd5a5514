//! The command `portguard`.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use guard_userspace::{
    api::control::Action,
    base::failure::{Exit, Failure},
    cli::{
        arguments::{self, AuditFlags, CheckFlags, Cli, Command, HardenFlags},
        audit, check, detach, flows, generated,
        harden::{self, Harden, Places},
        ports, report,
    },
    daemon::{
        event_loop::RunRequest,
        log,
        process::{self, block_on},
    },
    guard::fault_injection::Parts,
    host::descriptors,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match arguments::complaint(&error) {
            Some(complaint) => {
                eprintln!("{complaint}");
                return Exit::Usage.into();
            }
            None => error.exit(),
        },
    };
    log::to_stderr();
    let done = match cli.command {
        Command::Run(flags) => {
            let start = RunRequest {
                flags: flags.layer.0,
                config: flags.config,
            };
            process::guard(start, Parts::default())
        }
        Command::Status(flags) => report::status(
            &flags.control_socket,
            flags.json,
            flags
                .watch
                .map(|seconds| Duration::from_secs(seconds.into())),
        ),
        Command::Flows(flags) => flows::run(&flags.control_socket, flags.json, &flags.view),
        Command::Check(flags) => return check(flags),
        Command::Audit(flags) => return audit(&flags),
        Command::Reload(flags) => report::act(&flags.control_socket, &Action::Reload),
        Command::Detach(flags) => block_on(detach::run(&flags.pin_dir)),
        Command::Harden(flags) => harden(&flags),
        Command::Ports(flags) => ports::run(Duration::from_secs(flags.seconds.into()), flags.json),
        Command::Completions(flags) => generated::completions(flags.shell),
        Command::Man(flags) => generated::man(flags.folder.as_deref()),
    };

    match done {
        Ok(()) => {
            log::finish();
            Exit::Fine.into()
        }
        Err(failure) => {
            log::end(&failure);
            failure.code.into()
        }
    }
}

fn harden(flags: &HardenFlags) -> Result<(), Failure> {
    let places = Places {
        folder: &flags.sysctl_dir,
        control: &flags.control_socket,
    };
    let Some(range) = flags.range else {
        return harden::revert(places, flags.force);
    };
    let reserve = flags.reserve.clone().unwrap_or_default();

    harden::harden(
        &Harden {
            range,
            reserve: reserve.0,
            dry_run: flags.dry_run,
            force: flags.force,
        },
        places,
    )
}

fn audit(flags: &AuditFlags) -> ExitCode {
    match audit::run(&flags.control_socket, flags.threshold, flags.json) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.code.into()
        }
    }
}

fn check(flags: CheckFlags) -> ExitCode {
    // As a run does.
    descriptors::raise_limit();
    let start = RunRequest {
        flags: flags.run.layer.0,
        config: flags.run.config,
    };
    match block_on(check::run(&start, flags.json)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            log::end(&failure);
            failure.code.into()
        }
    }
}
