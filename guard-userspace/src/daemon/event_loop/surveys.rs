//! What is asked about the host aside, so that the loop goes on while the kernel answers.

use std::future;

use anyhow::Context;
use tokio::task::{JoinHandle, spawn, spawn_blocking};

/// A question, if it is under way: at most one of a kind is.
pub(super) struct Question<T>(Option<JoinHandle<anyhow::Result<T>>>);

impl<T> Default for Question<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> Question<T> {
    /// Whether it is under way.
    pub(super) const fn is_asked(&self) -> bool {
        self.0.is_some()
    }

    /// Asks on a thread that waits for the kernel, unless the last answer has not come yet.
    pub(super) fn ask(&mut self, question: impl FnOnce() -> anyhow::Result<T> + Send + 'static) {
        if !self.is_asked() {
            self.0 = Some(spawn_blocking(question));
        }
    }

    /// Asks by way of something that answers by message itself, unless the last answer has not come
    /// yet.
    pub(super) fn send(
        &mut self,
        question: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) {
        if !self.is_asked() {
            self.0 = Some(spawn(question));
        }
    }

    /// Waits for the answer; for ever where nothing was asked.
    ///
    /// # Errors
    /// When the kernel refuses, or the thread has panicked.
    pub(super) async fn answer(&mut self) -> anyhow::Result<T> {
        let Some(asked) = &mut self.0 else {
            return future::pending().await;
        };
        let answer = asked.await;
        self.0 = None;

        answer.context("work on another thread has failed")?
    }
}
