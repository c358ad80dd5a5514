//! Putting a policy in force: the only writer of pages.

use std::{
    collections::BTreeSet,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use guard_common::abi::layout::MAX_ADDRESSES;
use ipnet::IpNet;

use super::policy::{Plan, Policy};
use crate::{
    bpf::maps::{Prefixes, StateMemory, TunnelPorts},
    guard::timers::Timers,
    host::range::PortBitmap,
};

/// Longer than any program runs that has read which page is in force, where the kernel does not tell
/// when all of them have ended.
const LONGEST_RUN: Duration = Duration::from_secs(1);

/// Puts policies in force, one after the other.
pub struct Publisher {
    state: Arc<StateMemory>,
    timers: Arc<Timers>,
    in_force: Option<Policy>,
    /// When the page that is in force came into force, if this process has done that.
    flipped: Option<Instant>,
    /// Whether it was said that the kernel does not tell who reads a page.
    complained: bool,
}

/// The maps that say more than a page has room for.
pub struct Lists<'a> {
    /// Prefixes that are trusted.
    pub trusted: &'a mut Prefixes,
    /// Where the kernel itself receives.
    pub kernel_ports: &'a mut TunnelPorts,
}

impl Publisher {
    /// One that has published nothing yet.
    pub fn new(state: Arc<StateMemory>, timers: Arc<Timers>) -> Self {
        Self {
            state,
            timers,
            in_force: None,
            flipped: None,
            complained: false,
        }
    }

    /// What is in force, unless an earlier run has put it in force.
    pub fn in_force(&self) -> Option<&Policy> {
        self.in_force.as_ref()
    }

    /// Puts a policy in force as its plan says, but for what has to be learned. In monitor mode the
    /// programs ask about ports of `sockets`.
    ///
    /// # Errors
    /// When the kernel takes no more trusted prefixes. The former policy stays in force then.
    pub fn publish(
        &mut self,
        policy: Policy,
        plan: &Plan,
        sockets: &PortBitmap,
        lists: Lists<'_>,
    ) -> anyhow::Result<()> {
        if !plan.flips {
            return Ok(());
        }
        // Before the page that asks for them, and taken out after the one that did.
        if let Err(error) = trust_either(&plan.trusted, &policy, lists.trusted) {
            if let Some(former) = &self.in_force {
                // What the former one has is in there already.
                let _ = lists.trusted.set(former.trusted.iter().copied());
            }
            return Err(error);
        }
        // What cannot be told stays guarded.
        let added = lists.kernel_ports.add(&plan.kernel);
        self.wait_for_readers();

        let (state, secret) = (&self.state, self.state.filter().seeds[0]);
        let basis = (policy.timeouts, policy.adaptive);
        self.timers.reconfigure(basis, |timeouts| {
            let (page, in_force) = policy.page(timeouts, secret, sockets);
            if plan.invalidates {
                state.doubt_filter();
            }
            state.replace(&page, in_force);
            if plan.invalidates {
                // A sweep may have been complete between the first time and the flip.
                state.doubt_filter();
            }
            anyhow::Ok(())
        })?;
        self.flipped = Some(Instant::now());

        let kernel = lists.kernel_ports.set(policy.ports.kernel());
        let trusted = lists.trusted.set(policy.trusted.iter().copied());
        self.in_force = Some(policy);
        if let Err(error) = added.and(kernel) {
            tracing::warn!("{error:#}");
        }

        trusted
    }

    /// Waits until no program can still read the page that is not in force: all that began before the
    /// last flip have ended.
    fn wait_for_readers(&mut self) {
        if self.state.layout() == 0 {
            // A new map, which no program has read yet.
            return;
        }
        let Err(error) = membarrier() else {
            return;
        };
        if !self.complained {
            self.complained = true;
            tracing::warn!(
                "membarrier: {error}, so the kernel does not tell when no program reads a former \
                 configuration any more: the next change waits until the last one is {} s old",
                LONGEST_RUN.as_secs()
            );
        }
        let age = self
            .flipped
            .map_or(Duration::ZERO, |flipped| flipped.elapsed());
        thread::sleep(LONGEST_RUN.saturating_sub(age));
    }
}

/// Lets the map hold what both policies trust, or what the next one does where there is no room for
/// both.
fn trust_either(
    either: &BTreeSet<IpNet>,
    next: &Policy,
    trusted: &mut Prefixes,
) -> anyhow::Result<()> {
    if either.len() <= MAX_ADDRESSES as usize {
        trusted.set(either.iter().copied())
    } else {
        trusted.set(next.trusted.iter().copied())
    }
}

/// Returns once every program that runs at this moment has ended: programs run within RCU read-side
/// sections, and the kernel waits for those of all processors (`synchronize_rcu`,
/// kernel/sched/membarrier.c). It refuses where some processors are left alone (nohz_full).
fn membarrier() -> anyhow::Result<()> {
    /// `MEMBARRIER_CMD_GLOBAL`, include/uapi/linux/membarrier.h.
    const GLOBAL: libc::c_int = 1;

    // SAFETY: the call has no pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).context("MEMBARRIER_CMD_GLOBAL")
    }
}
