//! The process: one thread that does everything, and the signals that end it.

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    daemon::{self, Start},
    failure::Failure,
    listeners::Helper,
    workings::Workings,
};

/// Guards until SIGTERM or SIGINT.
///
/// # Errors
/// As [`daemon::run`].
pub fn guard(start: Start, workings: Workings) -> Result<(), Failure> {
    // The guard does not depend on who can be named.
    let helper = Helper::start().unwrap_or_else(|failure| {
        tracing::warn!("{failure}");
        Helper::none()
    });
    block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(anyhow::Error::from)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(anyhow::Error::from)?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("stopping: SIGTERM"),
                _ = interrupt.recv() => tracing::info!("stopping: SIGINT"),
            }
        };
        daemon::run(start, workings, helper, shutdown).await
    })
}

/// Does some work on one thread: the daemon waits far more than it works.
///
/// # Errors
/// Those of the work, and when the kernel gives no means to wait.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?;
    let done = runtime.block_on(work);
    // A walk over large maps may still be under way on a thread of its own.
    runtime.shutdown_background();

    done
}
