//! The command `portguard`.

use std::process::ExitCode;

use clap::Parser;
use guard_userspace::{
    cli::{Cli, Command},
    daemon::{self, Start},
    failure::{Exit, Failure},
    log, report,
};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::to_stderr();
    let done = match cli.command {
        Command::Run(flags) => run(Start {
            flags: flags.layer,
            config: flags.config,
        }),
        Command::Status(flags) => report::status(&flags.control_socket, flags.json),
        Command::Flows(flags) => report::flows(&flags.control_socket, flags.json),
        Command::Check(_) | Command::Detach(_) => Ok(()),
    };

    match done {
        Ok(()) => Exit::Fine.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.code.into()
        }
    }
}

/// One thread does everything: the daemon waits far more than it works.
fn run(start: Start) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?;

    runtime.block_on(async {
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
