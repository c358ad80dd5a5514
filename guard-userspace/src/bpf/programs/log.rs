//! What the kernel programs say, in a build for debugging.

use std::time::Duration;

use anyhow::Context;
use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::task::AbortHandle;

/// How often what was said is fetched.
const EVERY: Duration = Duration::from_millis(100);

/// Forwards for as long as it lives.
#[derive(Debug)]
pub(super) struct Forwarding(AbortHandle);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Shows what programs say among the daemon's own lines. Must be called in a runtime.
///
/// # Errors
/// When the object was built without words.
pub(super) fn listen(mut ebpf: Ebpf) -> anyhow::Result<(Ebpf, Forwarding)> {
    let mut logger =
        EbpfLogger::init(&mut ebpf).context("the kernel programs were built without words")?;
    let task = tokio::spawn(async move {
        loop {
            logger.flush();
            tokio::time::sleep(EVERY).await;
        }
    });

    Ok((ebpf, Forwarding(task.abort_handle())))
}
