//! Putting a policy in force: the only writer of pages.

use std::{
    collections::BTreeSet,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use guard_common::abi::layout::MAX_ADDRESSES;
use ipnet::IpNet;

use super::policy::{Plan, Policy};
use crate::{
    bpf::{
        grace,
        maps::{Prefixes, StateMemory, TunnelPorts},
    },
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
    /// Whether programs may still read the page that is not in force.
    read: bool,
    /// When the page that is in force came into force, if this process has done that.
    flipped: Option<Instant>,
    /// Whether the maps may hold what only a former policy needs.
    untidy: bool,
    /// Whether that was said.
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
            // An earlier run may have flipped just now.
            read: true,
            flipped: None,
            untidy: false,
            complained: false,
        }
    }

    /// What is in force, unless an earlier run has put it in force.
    pub fn in_force(&self) -> Option<&Policy> {
        self.in_force.as_ref()
    }

    /// Lets egress record whatever `next` guards as well, until that is [published](Self::publish) or
    /// [given up](Self::give_up). Flows that are not seen by a look at sockets and conntrack that begins
    /// after this are recorded.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn record_both(&mut self, next: &Policy) -> anyhow::Result<()> {
        let secret = self.state.filter().seeds[0];
        let (page, in_force) = next.page(next.timeouts, secret, &PortBitmap::default());
        // Until the page is filled it says what was guarded before the last flip, so that a little too
        // much is recorded. A killed run may have left egress reading the page that is filled here: it
        // is told to read the other one first.
        self.state.record_both(in_force);
        if let Err(error) = self.wait_for_readers() {
            self.give_up();
            return Err(error);
        }
        self.state.fill(&page);
        // A program that has begun before may not have recorded its packet. The kernel knew of the
        // packet's socket and tracked it before the program began, so both are seen by a look that
        // begins when the program has ended. Where the kernel does not tell when it has, it takes
        // longer to look than a program to end.
        let _ = grace::wait_for_programs();

        Ok(())
    }

    /// Lets egress record what the policy in force guards, and no more.
    pub fn give_up(&self) {
        self.state.record_one();
    }

    /// Puts a policy in force as its plan says, but for what has to be learned. In monitor mode the
    /// programs ask about ports of `sockets`.
    ///
    /// Once it is in force nothing fails any more: what the maps of the former policy keep is taken out
    /// by a later call, which need not bring anything new.
    ///
    /// # Errors
    /// When the kernel takes no more trusted prefixes, or programs may still read the page that is to be
    /// written. The former policy stays in force then.
    pub fn publish(
        &mut self,
        policy: Policy,
        plan: &Plan,
        sockets: &PortBitmap,
        mut lists: Lists<'_>,
    ) -> anyhow::Result<()> {
        if !plan.flips {
            self.tidy(&mut lists);
            return Ok(());
        }
        self.wait_for_readers()?;
        // Before the page that asks for them, and taken out after the one that did.
        if let Err(error) = trust_either(&plan.trusted, &policy, lists.trusted) {
            if let Some(former) = &self.in_force {
                // What the former one has is in there already.
                let _ = lists.trusted.set(former.trusted.iter().copied());
            }
            return Err(error);
        }
        // What cannot be told stays guarded.
        if let Err(error) = lists.kernel_ports.add(&plan.kernel) {
            tracing::warn!("{error:#}");
        }

        let (state, secret) = (&self.state, self.state.filter().seeds[0]);
        let basis = (policy.timeouts, policy.adaptive);
        self.timers.reconfigure(basis, |timeouts| {
            let (page, in_force) = policy.page(timeouts, secret, sockets);
            if plan.invalidates {
                state.invalidate_filter();
            }
            state.replace(&page, in_force);
            if plan.invalidates {
                // A sweep may have been complete between the first time and the flip.
                state.invalidate_filter();
            }
        });
        (self.read, self.flipped) = (true, Some(Instant::now()));
        self.in_force = Some(policy);
        (self.untidy, self.complained) = (true, false);
        self.tidy(&mut lists);

        Ok(())
    }

    /// Takes out of the maps what only a former policy needs, as far as the kernel lets go of it.
    fn tidy(&mut self, lists: &mut Lists<'_>) {
        let Some(policy) = self.in_force.as_ref().filter(|_| self.untidy) else {
            return;
        };
        let trusted = lists.trusted.set(policy.trusted.iter().copied());
        let kernel = lists.kernel_ports.set(policy.ports.kernel());
        match trusted.and(kernel) {
            Ok(()) => self.untidy = false,
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(
                    "the change is in force, but what only the former configuration lets in may still \
                     get in: {error:#}; tried again every few seconds"
                );
            }
            Err(_) => {}
        }
    }

    /// Waits until no program can still read the page that is not in force: all that began before the
    /// last flip have ended.
    ///
    /// # Errors
    /// When the kernel does not tell, and the last flip was a moment ago.
    fn wait_for_readers(&mut self) -> anyhow::Result<()> {
        // No program has read a new map yet.
        if !self.read || self.state.layout() == 0 {
            return Ok(());
        }
        let Err(error) = grace::wait_for_programs() else {
            self.read = false;
            return Ok(());
        };
        match self.flipped {
            // An earlier run may have flipped just now, and nothing else is delayed by a start.
            None => thread::sleep(LONGEST_RUN),
            Some(flipped) if flipped.elapsed() >= LONGEST_RUN => {}
            Some(_) => {
                return Err(error.context(format!(
                    "the kernel does not tell whether the former configuration is still read: try \
                     again in {} s",
                    LONGEST_RUN.as_secs()
                )));
            }
        }

        Ok(())
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
