//! The map `state`, in memory that is shared with the programs.

use std::{
    ptr::NonNull,
    sync::atomic::{self, AtomicU64, Ordering},
};

use guard_common::{
    abi::{
        layout::LAYOUT_VERSION,
        state::{State, StateCell},
    },
    flow::timer::Timeouts,
    frame::transport::Transport,
    ports::{
        bloom::{BloomFilter, BloomSize},
        class::{FIRST_KERNEL_PORT, KERNEL_WORDS, PORTS, Window},
        occupancy::{Occupancy, Use},
        peer::PeerHash,
    },
};
use nix::sys::mman::munmap;

use crate::{
    bpf::pins::Pins,
    config::{Mode, Settings},
    host::range::GuardedPorts,
};

/// What comes first in the map `state`. The programs see each store at once.
#[derive(Debug)]
pub struct StateMemory {
    state: NonNull<State>,
    /// Elements of the map.
    pub(super) elements: u32,
}

// SAFETY: the memory belongs to the map, not to a thread, and is only accessed a word at a time.
unsafe impl Send for StateMemory {}
// SAFETY: shared references only read, by volatile reads of single words.
unsafe impl Sync for StateMemory {}

/// One volatile read and one volatile store a word.
macro_rules! words {
    ($($(#[doc = $doc:literal])+ $read:ident, $store:ident: $field:ident;)+) => {
        impl StateMemory {
            $(
                $(#[doc = $doc])+
                pub fn $read(&self) -> u32 {
                    // SAFETY: the memory is mapped for as long as `self` lives, and is a `State`.
                    unsafe { (&raw const (*self.state.as_ptr()).config.$field).read_volatile() }
                }

                /// Changes it.
                pub fn $store(&mut self, value: u32) {
                    // SAFETY: as above; a store of one whole word is never seen in part.
                    unsafe { (&raw mut (*self.state.as_ptr()).config.$field).write_volatile(value) }
                }
            )+
        }
    };
}

words! {
    /// The layout that the map was written for; 0 in a new map.
    layout, set_layout: layout;
    /// The page of guarded ports that is in force.
    page, set_page: page;
    /// The epoch of the occupancy table.
    epoch, set_epoch: epoch;
    /// Whether would-be drops pass.
    monitor, set_monitor: monitor;
    /// Whether a UDP flow admits every port of the peer's address.
    any_remote_port, set_any_remote_port: any_remote_port;
    /// Whether flows may be rescued.
    rescue, set_rescue: rescue;
    /// Questions to ask before a drop.
    exceptions, set_excuses_alone: exceptions;
    /// How often the filter was doubted.
    invalidations, set_doubts: invalidations;
}

impl StateMemory {
    /// Maps the memory of the pinned map.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses (before 5.5).
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        let (memory, elements) = super::share(pins, Some(size_of::<State>()))?;

        Ok(Self {
            state: memory.cast(),
            elements,
        })
    }

    /// Puts other ports in force, as one whole: fills the page that is not in use, then flips.
    pub fn guard_ports(&mut self, ports: &GuardedPorts, unrecorded: impl Iterator<Item = u16>) {
        self.set_window(Window::NONE);
        self.doubt_filter();
        let next = 1 - (self.page() & 1);
        let mut leave = [0; PORTS / 32];
        for port in unrecorded {
            leave[usize::from(port / 32)] |= 1 << (port % 32);
        }
        let mut kernel = [0; KERNEL_WORDS];
        for (port, _) in ports.kernel() {
            if let Some(place) = usize::from(*port).checked_sub(FIRST_KERNEL_PORT) {
                kernel[place / 32] |= 1 << (place % 32);
            }
        }
        // SAFETY: the memory is mapped for as long as `self` lives, and is a `State`. The programs
        // read the other page, and have done so since the last change, which is many frames ago.
        unsafe {
            let page = &raw mut (*self.state.as_ptr()).guarded[next as usize];
            (&raw mut (*page).first).write_volatile(u32::from(ports.range().first()));
            (&raw mut (*page).last).write_volatile(u32::from(ports.range().last()));
            (&raw mut (*page).tcp).write_volatile(*ports.bitmap(Transport::Tcp).words());
            (&raw mut (*page).udp).write_volatile(*ports.bitmap(Transport::Udp).words());
            (&raw mut (*page).unrecorded).write_volatile(leave);
            (&raw mut (*page).kernel).write_volatile(kernel);
        }
        self.expect_users(ports);
        // Whoever sees the new page must see what is on it.
        atomic::fence(Ordering::Release);
        self.set_page(next);
        self.open_window();
        // A sweep may have been complete between the first doubt and the flip.
        self.doubt_filter();
    }

    /// Says which questions to ask before a drop.
    pub fn set_excuses(&mut self, exceptions: u32) {
        self.set_excuses_alone(exceptions);
        self.open_window();
    }

    /// Lets the programs drop strangers without a question where there is none to ask.
    fn open_window(&mut self) {
        // SAFETY: the memory is mapped for as long as `self` lives, and is a `State`; only this
        // process writes what is read here.
        let window = unsafe {
            let state = self.state.as_ptr();
            let page = ((*state).config.page & 1) as usize;
            (*state).config.window_for(&(&(*state).guarded)[page])
        };
        self.set_window(window);
    }

    /// Changes which marks of the filter count. The sweeper and whoever doubts the filter may do so
    /// at once.
    pub(super) fn change_size(&mut self, change: impl Fn(BloomSize) -> BloomSize) {
        // SAFETY: the memory is mapped for as long as `self` lives, and is a `State`, of which this
        // aligned word is only changed here once programs look at it.
        let word = unsafe {
            let size = &raw mut (*self.state.as_ptr()).config.filter.size;
            AtomicU64::from_ptr(size.cast())
        };
        word.update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            change(BloomSize::from_word(word)).word()
        });
    }

    fn set_window(&mut self, window: Window) {
        // SAFETY: the memory is mapped for as long as `self` lives, and is a `State`; a store of
        // one whole word is never seen in part.
        unsafe { (&raw mut (*self.state.as_ptr()).config.window).write_volatile(window) }
    }

    /// Lets ports look busy that are not guarded yet and are on the next page, until sweeps have
    /// looked at them. A connection that is opened between the last list of sockets and the flip
    /// is on no list and was not recorded: only the kernel's socket proves it, which nobody asks
    /// for on a port that looks free.
    fn expect_users(&self, next: &GuardedPorts) {
        let epoch = self.epoch() as u8;
        // SAFETY: the memory is mapped for as long as `self` lives, and is a `State`. Only this
        // process writes pages.
        let (first, tcp, udp) = unsafe {
            let page = &raw const (*self.state.as_ptr()).guarded[(self.page() & 1) as usize];
            (
                (&raw const (*page).first).read_volatile(),
                (&raw const (*page).tcp).read_volatile(),
                (&raw const (*page).udp).read_volatile(),
            )
        };
        if first == 0 {
            // A new map: nobody enforces it yet, and whoever connects from now on is recorded.
            return;
        }
        for (purpose, transport, guarded) in [
            (Use::Tcp, Transport::Tcp, &tcp),
            (Use::Udp, Transport::Udp, &udp),
            (Use::UdpLite, Transport::UdpLite, &udp),
        ] {
            let words = next.bitmap(transport).words().iter().zip(guarded);
            for (port, (next, guarded)) in (0..=u16::MAX).step_by(32).zip(words) {
                let added = next & !guarded;
                for bit in (0..32).filter(|bit| added >> bit & 1 != 0) {
                    self.mark(purpose, port + bit, epoch);
                }
            }
        }
    }

    /// What a run has left in force, if one has.
    pub fn in_force(pins: &Pins) -> Option<Self> {
        let state = Self::open(pins).ok()?;

        (state.layout() != 0).then_some(state)
    }

    /// Notes that `port` is used for `purpose` in `epoch`.
    pub fn mark(&self, purpose: Use, port: u16, epoch: u8) {
        self.cell()
            .occupancy(purpose, usize::from(port))
            .mark(epoch);
    }

    /// Whether `port` is used with one remote address, or was with any in the present epoch, or in
    /// one next to it.
    pub fn in_use(&self, purpose: Use, port: u16) -> bool {
        self.is_marked(purpose, port)
            || self.cell().single_peer(purpose, usize::from(port)).load() != PeerHash::NONE
    }

    /// Whether something on this port has flows: a UDP socket there has sent, and is no listener
    /// that only waits.
    pub fn has_flows(&self, transport: Transport, port: u16) -> bool {
        self.in_use(Use::flow(transport), port)
            || transport == Transport::Udp && self.in_use(Use::Multicast, port)
    }

    /// Whether `port` is used with one remote address and no other.
    pub fn is_owned(&self, purpose: Use, port: u16) -> bool {
        !self.is_marked(purpose, port) && self.in_use(purpose, port)
    }

    fn is_marked(&self, purpose: Use, port: u16) -> bool {
        let epoch = self.epoch() as u8;
        self.cell()
            .occupancy(purpose, usize::from(port))
            .fresh(epoch)
    }

    /// Takes over what a complete sweep has found of `port`, before `epoch` begins.
    pub(super) fn settle(&self, purpose: Use, port: usize, users: PeerHash, epoch: u8) {
        let cell = self.cell();
        cell.single_peer(purpose, port)
            .update(users, cell.occupancy(purpose, port), epoch);
    }

    /// Whether `port` is guarded.
    pub fn guards(&self, transport: Transport, port: u16) -> bool {
        self.cell().guarded().guards(transport, usize::from(port))
    }

    /// Whether a flow between these ports is recorded: of a guarded port, and not with a tunnel's.
    pub fn records(&self, transport: Transport, local_port: u16, remote_port: u16) -> bool {
        let guarded = self.cell().guarded();

        guarded.guards(transport, usize::from(local_port))
            && !guarded.leaves_unrecorded(transport, usize::from(remote_port))
    }

    pub(super) fn cell(&self) -> &StateCell {
        // SAFETY: the memory is mapped for as long as `self` lives, and a `StateCell` is a `State`.
        unsafe { self.state.cast::<StateCell>().as_ref() }
    }

    /// Starts the epochs of a new map, whose filter hashes by `seeds`, which nobody must know.
    pub fn begin(&mut self, seeds: [u64; 3]) {
        if self.layout() != 0 {
            return;
        }
        self.set_epoch(u32::from(Occupancy::FIRST_EPOCH));
        // SAFETY: the memory is mapped for as long as `self` lives, and is a `State` that no
        // program reads yet.
        unsafe {
            let place = &raw mut (*self.state.as_ptr()).config.filter;
            place.write_volatile(BloomFilter::new(seeds));
        }
    }

    /// Applies what settings say but for the timers, a word at a time.
    pub fn apply(&mut self, settings: &Settings) {
        self.doubt_filter();
        self.set_monitor(u32::from(settings.mode == Mode::Monitor));
        self.open_window();
        self.set_any_remote_port(u32::from(settings.udp_filter.any_remote_port()));
        self.set_rescue(u32::from(!settings.no_rescue));
        self.set_layout(LAYOUT_VERSION);
    }

    /// Puts timers in force. A program may read some of them before and some after the change,
    /// each of them whole.
    pub(crate) fn set_timeouts(&mut self, timeouts: Timeouts) {
        // SAFETY: the memory is mapped for as long as `self` lives, and is a `State`, of whose
        // timers each store below changes one aligned word.
        unsafe {
            let place = &raw mut (*self.state.as_ptr()).config.timeouts;
            (&raw mut (*place).tcp_syn).write_volatile(timeouts.tcp_syn);
            (&raw mut (*place).tcp_established).write_volatile(timeouts.tcp_established);
            (&raw mut (*place).tcp_transitory).write_volatile(timeouts.tcp_transitory);
            (&raw mut (*place).udp).write_volatile(timeouts.udp);
            (&raw mut (*place).udp_dns).write_volatile(timeouts.udp_dns);
            (&raw mut (*place).multicast).write_volatile(timeouts.multicast);
            (&raw mut (*place).fragment).write_volatile(timeouts.fragment);
        }
    }

    /// The timers in force.
    pub fn timeouts(&self) -> Timeouts {
        // SAFETY: as in `set_timeouts`; only this process writes them.
        unsafe { (&raw const (*self.state.as_ptr()).config.timeouts).read_volatile() }
    }
}

impl Drop for StateMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it any more.
        let _ = unsafe { munmap(self.state.cast(), size_of::<State>()) };
    }
}
