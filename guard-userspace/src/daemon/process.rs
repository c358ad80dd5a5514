//! The process: one thread that does everything, and the signals that end it.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    base::failure::Failure,
    daemon::{
        event_loop::{self, RunRequest},
        log,
    },
    guard::fault_injection::Parts,
    host::{descriptors, socket_owners::OwnerHelper},
};

/// Longer than any process runs.
const FOR_GOOD: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Guards until SIGTERM or SIGINT.
///
/// # Errors
/// As [`event_loop::run`].
pub fn guard(start: RunRequest, parts: Parts) -> Result<(), Failure> {
    share_heap();
    // Anyone who reads the log may stand still, and guarding must not.
    log::wait_no_more();
    descriptors::raise_limit();
    // Before anything that cannot say so: the runtime panics without.
    descriptors::require(descriptors::for_a_guard(1))?;
    // The guard does not depend on who can be named.
    let helper = OwnerHelper::start().unwrap_or_else(|failure| {
        tracing::warn!("{failure}");
        OwnerHelper::none()
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
        event_loop::run(start, parts, helper, shutdown).await
    })
}

/// Has all threads allocate from one heap: each of those that work aside for a moment would otherwise
/// leave half a megabyte of its own resident.
fn share_heap() {
    // SAFETY: the call takes two numbers, and there are no other threads yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        // Where it is refused, the daemon only takes more memory.
        let _ = libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Does some work on one thread: the daemon waits far more than it works.
///
/// # Errors
/// Those of the work, and when the kernel gives no means to wait.
pub fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    descriptors::require(descriptors::FOR_A_QUESTION)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Threads that work aside stay: at a moment when the kernel starts none, there are some.
        .thread_keep_alive(FOR_GOOD)
        .build()
        .map_err(anyhow::Error::from)?;
    let done = runtime.block_on(work);
    // A walk over large maps may still be under way on a thread of its own.
    runtime.shutdown_background();

    done
}
