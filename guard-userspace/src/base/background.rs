//! Work that blocks, done on another thread.

use anyhow::Context;

/// Does `work` on a thread that has nothing else to do, and leaves the calling one to others
/// meanwhile.
///
/// Not to be called while the calling thread has privileges that it will give up: the other one would
/// keep them.
///
/// # Errors
/// When the work has panicked.
pub async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("work on another thread has failed")
}
