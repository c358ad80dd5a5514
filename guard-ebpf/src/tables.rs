//! The maps and the clock, as guard-common asks for them.

use core::ptr::NonNull;

use aya_ebpf::bindings::BPF_NOEXIST;
use guard_common::{
    config::{ConfigCell, Device},
    flow::{Flow, FlowCell},
    fragment::{FragmentKey, RefusedAt},
    key::SizedKey,
    outcome::{Action, Judged},
    parse::Transport,
    ports::{GuardedPorts, Occupancy},
    tables::{Inserted, Tables, Use},
};

use crate::{clock, maps, verifier};

/// `EEXIST`, negated, from an insertion that must not replace.
const EXISTS: i32 = -17;

/// What the programs look things up in: fetched once a frame.
pub struct KernelTables {
    config: &'static ConfigCell,
    guarded: &'static GuardedPorts,
}

impl KernelTables {
    /// The tables in force. `None` is impossible, but only the kernel knows.
    #[inline(always)]
    pub fn get() -> Option<Self> {
        let config = maps::CONFIG.get_ptr(0)?.cast::<ConfigCell>();
        // SAFETY: a map's element lives as long as the program and `ConfigCell` is a `Config`.
        let config = unsafe { &*config };
        let guarded = maps::GUARDED.get(config.page() & 1)?;

        Some(Self { config, guarded })
    }

    /// What is carried out: in monitor mode nothing is dropped.
    #[inline(always)]
    pub fn verdict(&self, action: Action) -> Action {
        match action {
            Action::Drop if self.config.monitor() == 0 => Action::Drop,
            Action::Drop | Action::Pass => Action::Pass,
        }
    }

    /// Counts one frame.
    #[inline(always)]
    pub fn count(&self, judged: Judged, verdict: Action) {
        let slot = judged.slot(maps::DEVICE.load(), verdict);
        if let Some(counter) = maps::COUNTERS_MAP.get_ptr_mut(slot) {
            // SAFETY: the element is this processor's own, and programs do not interrupt each
            // other on it: both run with bottom halves disabled.
            unsafe { *counter += 1 }
        }
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn now(&self) -> u32 {
        clock::ticks()
    }

    #[inline(always)]
    fn config(&self) -> &ConfigCell {
        self.config
    }

    #[inline(always)]
    fn guarded(&self) -> &GuardedPorts {
        self.guarded
    }

    #[inline(always)]
    fn occupancy(&self, purpose: Use, port: u16) -> Option<&Occupancy> {
        let ports = NonNull::new(maps::OCCUPANCY.get_ptr_mut(purpose as u32)?.cast::<u8>())?;
        // SAFETY: the element has a byte for each value of a `u16`, and an `Occupancy` is a byte.
        Some(unsafe {
            ports
                .add(verifier::index(port))
                .cast::<Occupancy>()
                .as_ref()
        })
    }

    #[inline(always)]
    fn flow(&self, transport: Transport, key: SizedKey<'_>) -> Option<&FlowCell> {
        let flow = match (key, transport) {
            (SizedKey::V4(key), Transport::Tcp) => maps::FLOWS_TCP4.get_ptr_mut(key),
            (SizedKey::V4(key), Transport::Udp | Transport::UdpLite) => {
                maps::FLOWS_UDP4.get_ptr_mut(key)
            }
            (SizedKey::V6(key), Transport::Tcp) => maps::FLOWS_TCP6.get_ptr_mut(key),
            (SizedKey::V6(key), Transport::Udp | Transport::UdpLite) => {
                maps::FLOWS_UDP6.get_ptr_mut(key)
            }
        }?;
        // SAFETY: the element lives as long as the program, and a `FlowCell` is a `Flow`. Should
        // the LRU hand it to another flow meanwhile, that flow merely looks younger than it is.
        Some(unsafe { &*flow.cast::<FlowCell>() })
    }

    #[inline(always)]
    fn insert(&self, transport: Transport, key: SizedKey<'_>, flow: &Flow) -> Inserted {
        let flags = u64::from(BPF_NOEXIST);
        let inserted = match (key, transport) {
            (SizedKey::V4(key), Transport::Tcp) => maps::FLOWS_TCP4.insert(key, flow, flags),
            (SizedKey::V4(key), Transport::Udp | Transport::UdpLite) => {
                maps::FLOWS_UDP4.insert(key, flow, flags)
            }
            (SizedKey::V6(key), Transport::Tcp) => maps::FLOWS_TCP6.insert(key, flow, flags),
            (SizedKey::V6(key), Transport::Udp | Transport::UdpLite) => {
                maps::FLOWS_UDP6.insert(key, flow, flags)
            }
        };
        match inserted {
            Ok(()) => Inserted::New,
            Err(EXISTS) => Inserted::Exists,
            Err(_) => Inserted::Failed,
        }
    }

    #[inline(always)]
    fn device(&self) -> Option<&Device> {
        maps::DEVICES.get(maps::DEVICE.load())
    }

    #[inline(always)]
    fn refused(&self, key: &FragmentKey) -> Option<&RefusedAt> {
        let mark = maps::REFUSED.get_ptr_mut(key)?;
        // SAFETY: the element lives as long as the program, and a `RefusedAt` is a `u32`.
        Some(unsafe { &*mark.cast::<RefusedAt>() })
    }

    #[inline(always)]
    fn refuse(&self, key: &FragmentKey, now: u32) {
        // A mark that finds no room is forgotten: its later fragments wait for the kernel's timer.
        let _ = maps::REFUSED.insert(key, now, 0);
    }
}
