//! The command `portguard`.

use std::process::ExitCode;

use clap::Parser;
use guard_userspace::{
    check,
    cli::{self, CheckFlags, Cli, Command},
    daemon::{self, Start},
    detach,
    failure::{Exit, Failure},
    log, report,
};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => match cli::complaint(&error) {
            Some(complaint) => {
                eprintln!("{complaint}");
                return Exit::Usage.into();
            }
            None => error.exit(),
        },
    };
    log::to_stderr();
    let done = match cli.command {
        Command::Run(flags) => run(Start {
            flags: flags.layer,
            config: flags.config,
        }),
        Command::Status(flags) => report::status(&flags.control_socket, flags.json),
        Command::Flows(flags) => report::flows(&flags.control_socket, flags.json),
        Command::Check(flags) => return check(flags),
        Command::Detach(flags) => block_on(detach::run(&flags.pin_dir)),
    };

    match done {
        Ok(()) => Exit::Fine.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.code.into()
        }
    }
}

fn check(flags: CheckFlags) -> ExitCode {
    let start = Start {
        flags: flags.run.layer,
        config: flags.run.config,
    };
    match block_on(check::run(&start, flags.json)) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.code.into()
        }
    }
}

fn run(start: Start) -> Result<(), Failure> {
    block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        daemon::run(start, shutdown).await
    })
}

/// One thread does everything: the daemon waits far more than it works.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?;
    let done = runtime.block_on(work);
    // A walk over large maps may still be under way on a thread of its own.
    runtime.shutdown_background();

    done
}
