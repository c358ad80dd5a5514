//! What is asked about the host aside, so that the loop goes on while the kernel answers.

use std::{collections::BTreeSet, future};

use anyhow::Context;
use tokio::task::{JoinHandle, spawn, spawn_blocking};

use crate::{
    guard::listeners::Survey,
    host::{
        interfaces::{Counted, Interface},
        range::{GuardedPorts, PortBitmap},
        tunnels::TunnelPort,
    },
};

/// What is asked again and again. At most one question of a kind is under way.
#[derive(Default)]
pub(super) struct Surveys {
    /// Listeners on the ports that the question was about.
    pub(super) listeners: Question<(GuardedPorts, Survey)>,
    /// The TCP ports of those that something listens on.
    pub(super) listening: Question<(GuardedPorts, BTreeSet<u16>)>,
    /// Ports at which sockets wait for packets of any peer.
    pub(super) waiting: Question<PortBitmap>,
    /// Ports on which the kernel receives.
    pub(super) tunnels: Question<BTreeSet<TunnelPort>>,
    /// The interfaces, and whether the kernel had told of a change before.
    pub(super) interfaces: Question<(Vec<Interface>, bool)>,
    /// What guarded interfaces have counted, by their indices.
    pub(super) statistics: Question<Vec<(u32, Counted)>>,
}

/// A question, if it is under way.
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
