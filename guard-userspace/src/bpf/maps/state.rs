//! The map `state`, in memory that is shared with the programs.

use std::{
    array,
    mem::offset_of,
    ptr::NonNull,
    slice,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{self, AtomicU32, AtomicU64, Ordering},
    },
};

use guard_common::{
    abi::{
        page::{InForce, Page},
        state::{State, StateCell},
    },
    flow::timer::Timeouts,
    frame::transport::Transport,
    ports::{
        bloom::{BloomFilter, BloomSize},
        occupancy::{Occupancy, Use},
        peer::PeerHash,
    },
};
use nix::sys::mman::munmap;

use crate::{bpf::pins::Pins, host::range::PortBitmap};

/// What comes first in the map `state`, mapped once a process. The programs see each store at once.
#[derive(Debug)]
pub struct StateMemory {
    state: NonNull<State>,
    /// Elements of the map.
    pub(super) elements: u32,
    /// Held while a page is written, so that the other one is not put in force meanwhile.
    writing: Mutex<()>,
}

// SAFETY: the memory belongs to the map, not to a thread, and is only accessed by atomics and by
// volatile reads and stores of whole words and bytes.
unsafe impl Send for StateMemory {}
// SAFETY: as above, by every thread.
unsafe impl Sync for StateMemory {}

/// One atomic read and one atomic store a word.
macro_rules! words {
    ($($(#[doc = $doc:literal])+ $read:ident, $store:ident: $field:ident;)+) => {
        impl StateMemory {
            $(
                $(#[doc = $doc])+
                pub fn $read(&self) -> u32 {
                    self.word(offset_of!(State, config.$field)).load(Ordering::Acquire)
                }

                /// Changes it.
                pub fn $store(&self, value: u32) {
                    self.word(offset_of!(State, config.$field)).store(value, Ordering::Release);
                }
            )+
        }
    };
}

words! {
    /// The layout that the map was written for; 0 in a new map.
    layout, set_layout: layout;
    /// The epoch of the occupancy table.
    epoch, set_epoch: epoch;
    /// How often the filter was invalidated.
    invalidations, set_invalidations: invalidations;
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
            writing: Mutex::default(),
        })
    }

    /// What is in force.
    pub fn in_force(&self) -> InForce {
        let word = self.long(offset_of!(State, config.in_force));

        InForce::from_word(word.load(Ordering::Acquire))
    }

    /// Whether a UDP flow admits every port of the peer's address.
    pub fn any_remote_port(&self) -> bool {
        self.in_force().has(InForce::ANY_REMOTE_PORT)
    }

    /// Whether flows may be rescued.
    pub fn rescues(&self) -> bool {
        self.in_force().has(InForce::RESCUE)
    }

    /// What egress goes by.
    pub fn recorded(&self) -> InForce {
        let word = self.long(offset_of!(State, config.recorded));

        InForce::from_word(word.load(Ordering::Acquire))
    }

    /// From now on egress records what either page guards, within the ranges of both: that in force and
    /// `next`, which is about to come into force by the page that is [filled](Self::fill).
    pub fn record_both(&self, next: InForce) {
        self.record(self.in_force().before(next));
    }

    /// From now on egress records what the policy in force guards, and nothing else.
    pub fn record_one(&self) {
        self.record(self.in_force());
    }

    fn record(&self, word: InForce) {
        self.long(offset_of!(State, config.recorded))
            .store(word.word(), Ordering::Release);
    }

    /// Fills the page that is not in force. No program may read it any more, but egress, which may
    /// already see which ports it guards.
    pub fn fill(&self, page: &Page) {
        let _writing = self.write();
        self.put_page(page);
    }

    /// Puts another policy in force, as one whole: fills the page that is not in force, and flips.
    /// `in_force` says how to read the page, whichever of the two it becomes. Ports that become
    /// guarded look busy before.
    ///
    /// No program may read the page that is not in force any more, but as in [`fill`](Self::fill): a
    /// publisher, the only caller beside tests, sees to that.
    pub fn replace(&self, page: &Page, in_force: InForce) {
        let _writing = self.write();
        let next = self.put_page(page);
        self.expect_users(page);
        let in_force = in_force.with(InForce::SECOND_PAGE, next == 1);
        // A program that sees the word must see the page.
        self.long(offset_of!(State, config.in_force))
            .store(in_force.word(), Ordering::Release);
        // Not before: what ingress asks for must have been recorded.
        self.record_one();
    }

    /// Returns which page is not in force, and now holds this.
    fn put_page(&self, page: &Page) -> usize {
        const WORDS: usize = Page::SIZE / size_of::<u32>();

        let next = self.in_force().page() ^ 1;
        // SAFETY: a page is words without padding, as long as the constant says, and aligned as one.
        let words = unsafe { slice::from_raw_parts((&raw const *page).cast::<u32>(), WORDS) };
        let start = offset_of!(State, pages) + next * Page::SIZE;
        for (index, word) in words.iter().enumerate() {
            let place = self.word(start + index * size_of::<u32>());
            place.store(*word, Ordering::Relaxed);
        }

        next
    }

    /// Changes which marks of the filter count. The sweeper and whatever invalidates the filter may do so
    /// at once.
    pub(super) fn change_size(&self, change: impl Fn(BloomSize) -> BloomSize) {
        let word = self.long(offset_of!(State, config.filter.size));
        word.update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            change(BloomSize::from_word(word)).word()
        });
    }

    /// Lets ports look busy that become guarded by this page, until sweeps have looked at them. A
    /// connection that is opened between the last list of sockets and the flip is on no list and was
    /// not recorded: only the kernel's socket proves it, which is not asked for on a port that
    /// looks free.
    fn expect_users(&self, next: &Page) {
        let in_force = self.in_force();
        if in_force.range().is_none() {
            // A new map: nobody enforces it yet, and anyone who connects from now on is recorded.
            return;
        }
        let epoch = self.epoch() as u8;
        let before = self.cell().page(in_force).ports();
        for (purpose, next, before) in [
            (Use::Tcp, &next.ports.tcp, &before.tcp),
            (Use::Udp, &next.ports.udp, &before.udp),
            (Use::UdpLite, &next.ports.udp, &before.udp),
        ] {
            let words = next.iter().zip(before);
            for (port, (next, before)) in (0..=u16::MAX).step_by(32).zip(words) {
                let added = next & !before;
                for bit in (0..32).filter(|bit| added >> bit & 1 != 0) {
                    self.mark(purpose, port + bit, epoch);
                }
            }
        }
    }

    /// Says in monitor mode on which ports there are sockets, which are asked for about packets that
    /// would be dropped there. `all` says that there are no others.
    pub fn note_sockets(&self, ports: &PortBitmap, all: bool) {
        let _writing = self.write();
        let in_force = self.in_force();
        if !in_force.has(InForce::MONITOR) {
            return;
        }
        let start = self.page_at(in_force) + offset_of!(Page, special);
        let always = self.cell().page(in_force).ports();
        for (index, sockets) in ports.words().iter().enumerate() {
            let exempt = !(always.tcp[index] & always.udp[index]) | always.kernel[index];
            let place = self.word(start + index * size_of::<u32>());
            let before = if all {
                exempt
            } else {
                place.load(Ordering::Relaxed)
            };
            place.store(before | sockets, Ordering::Relaxed);
        }
    }

    /// Ports of which packets take the general path.
    pub fn special(&self) -> PortBitmap {
        let page = self.cell().page(self.in_force());

        (1..=u16::MAX)
            .filter(|port| page.is_special(usize::from(*port)))
            .collect()
    }

    fn write(&self) -> MutexGuard<'_, ()> {
        // Anyone who panicked while holding the lock has left every word whole.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page_at(&self, in_force: InForce) -> usize {
        offset_of!(State, pages) + in_force.page() * Page::SIZE
    }

    /// The aligned word at this offset.
    fn word(&self, offset: usize) -> &AtomicU32 {
        debug_assert!(offset.is_multiple_of(4) && offset < size_of::<State>());
        // SAFETY: the memory is mapped for as long as `self` lives, is longer than the offset, which
        // is a multiple of a word, and this word is only accessed as a whole.
        unsafe { AtomicU32::from_ptr(self.state.cast::<u8>().add(offset).cast().as_ptr()) }
    }

    /// The aligned word of 64 bits at this offset.
    fn long(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8) && offset < size_of::<State>());
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(self.state.cast::<u8>().add(offset).cast().as_ptr()) }
    }

    /// What a run has left in force, if one has.
    pub fn of_earlier(pins: &Pins) -> Option<Self> {
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
    pub fn take_over_users(&self, purpose: Use, port: usize, users: PeerHash, epoch: u8) {
        let cell = self.cell();
        cell.single_peer(purpose, port)
            .update(users, cell.occupancy(purpose, port), epoch);
    }

    /// Whether `port` is guarded.
    pub fn guards(&self, transport: Transport, port: u16) -> bool {
        self.cell()
            .page(self.in_force())
            .ports()
            .guards(transport, usize::from(port))
    }

    /// Whether a flow between these ports is recorded: of a guarded port, and not with a tunnel's.
    pub fn records(&self, transport: Transport, local_port: u16, remote_port: u16) -> bool {
        let guarded = self.cell().page(self.in_force()).ports();

        guarded.guards(transport, usize::from(local_port))
            && !guarded.leaves_unrecorded(transport, usize::from(remote_port))
    }

    pub(super) fn cell(&self) -> &StateCell {
        // SAFETY: the memory is mapped for as long as `self` lives, and a `StateCell` is a `State`.
        unsafe { self.state.cast::<StateCell>().as_ref() }
    }

    /// Starts the epochs of a new map, whose filter hashes by `seeds`, which nobody must know.
    pub fn begin(&self, seeds: [u64; 3]) {
        if self.layout() != 0 {
            return;
        }
        self.set_epoch(u32::from(Occupancy::FIRST_EPOCH));
        let filter = BloomFilter::new(seeds);
        let start = offset_of!(State, config.filter.seeds);
        for (index, seed) in filter.seeds.into_iter().enumerate() {
            self.long(start + index * size_of::<u64>())
                .store(seed, Ordering::Relaxed);
        }
        self.long(offset_of!(State, config.filter.size))
            .store(filter.size.word(), Ordering::Release);
    }

    /// Puts timers in force. A program may read some of them before and some after the change,
    /// each of them whole.
    pub fn set_timeouts(&self, timeouts: Timeouts) {
        let _writing = self.write();
        let start = self.page_at(self.in_force()) + offset_of!(Page, timeouts);
        for (index, length) in timeouts.words().into_iter().enumerate() {
            self.word(start + index * size_of::<u32>())
                .store(length, Ordering::Relaxed);
        }
    }

    /// The timers in force.
    pub fn timeouts(&self) -> Timeouts {
        let start = self.page_at(self.in_force()) + offset_of!(Page, timeouts);
        let length = |index: usize| {
            self.word(start + index * size_of::<u32>())
                .load(Ordering::Relaxed)
        };

        Timeouts::of_words(array::from_fn(length))
    }

    /// Lets every packet to a port in use be looked up, until a sweep that begins from now on is
    /// complete. To be called after whatever makes tuples known that neither egress nor a sweep has
    /// marked.
    pub fn invalidate_filter(&self) {
        self.set_invalidations(self.invalidations().wrapping_add(1));
        // A sweep that validates the filter at this moment must see this, or be seen.
        atomic::fence(Ordering::SeqCst);
        self.change_size(BloomSize::invalidated);
    }

    /// Lets the filter decide, unless it was invalidated since there were so many `invalidations`.
    pub fn validate_filter(&self, invalidations: u32) {
        if self.invalidations() != invalidations {
            return;
        }
        self.change_size(BloomSize::validated);
        atomic::fence(Ordering::SeqCst);
        if self.invalidations() != invalidations {
            self.change_size(BloomSize::invalidated);
        }
    }

    /// Makes the filter as long as suits the `marks` that a sweep has left in it, and says whether
    /// it was: other bytes do not count until a sweep has filled them.
    pub fn fit_filter(&self, marks: u64) -> bool {
        let size = self.filter().size;
        let fitting = size.fitting(marks, self.elements);
        if fitting.bytes() == size.bytes() {
            return true;
        }
        self.change_size(|_| fitting);

        false
    }

    /// Whether the filter decides.
    pub fn filters(&self) -> bool {
        self.filter().size.is_valid()
    }

    /// How tuples are hashed, and whether the answer counts.
    pub fn filter(&self) -> BloomFilter {
        self.cell().config().filter()
    }
}

impl Drop for StateMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it any more.
        let _ = unsafe { munmap(self.state.cast(), size_of::<State>()) };
    }
}
