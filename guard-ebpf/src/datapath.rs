//! The maps and the clock, as guard-common asks for them.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    btf_maps::lpm_trie::Key,
    programs::{TcContext, XdpContext},
};
use guard_common::{
    abi::{
        config::ConfigCell,
        device::Device,
        layout::{DIVERTED, LOCAL},
        page::{InForce, PageCell},
        state::{Element, ElementCell},
    },
    flow::{
        fragment::{FragmentKey, RefusedAt},
        key::{AddressKey, KernelPortKey, SizedKey},
        state::{Flow, FlowCell},
    },
    frame::{address::Address, ethernet::MacAddress, transport::Transport},
    outcome::{Decision, Family, Tally, Verdict},
    policy::datapath::{Datapath, Inserted, Locality, RouteKey, SocketMatch},
    ports::{
        bloom::Line,
        occupancy::{Occupancy, Use},
        peer::SinglePeer,
    },
};

use crate::{clock, kernel, maps, verifier};

/// `EEXIST`, negated, from an insertion that must not replace.
const EXISTS: i32 = -17;

/// The key of a trie, where the verifier wants it: it refuses words on the stack that are not at a
/// multiple of their size.
#[repr(C, align(8))]
struct TrieKey(Key<AddressKey>);

impl TrieKey {
    #[inline(always)]
    fn new(address: &AddressKey) -> Self {
        Self(Key::new(AddressKey::BITS, *address))
    }
}

/// What the programs look things up in: fetched once a frame.
pub struct KernelDatapath<C> {
    ctx: C,
    element: &'static ElementCell,
    in_force: InForce,
}

/// One element of the map `state`.
#[inline(always)]
fn element(index: usize) -> Option<&'static ElementCell> {
    let element = maps::STATE.get_ptr(index as u32)?.cast::<ElementCell>();
    // SAFETY: a map's element lives as long as the program, and an `ElementCell` is an `Element`.
    Some(unsafe { &*element })
}

/// The context that a program was called with.
pub trait Context {
    /// Its address, for helpers.
    fn address(&self) -> *mut c_void;

    /// The interface the frame is on.
    fn interface(&self) -> u32;

    /// The interface the frame came in by, or 0 when this host made it.
    fn came_in_by(&self) -> u32;
}

impl Context for &XdpContext {
    #[inline(always)]
    fn address(&self) -> *mut c_void {
        self.ctx.cast()
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn came_in_by(&self) -> u32 {
        self.interface()
    }
}

impl Context for &TcContext {
    #[inline(always)]
    fn address(&self) -> *mut c_void {
        self.skb.skb.cast()
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the context is this program's own.
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    fn came_in_by(&self) -> u32 {
        // SAFETY: the context is this program's own.
        unsafe { (*self.skb.skb).ingress_ifindex }
    }
}

impl<C: Context> KernelDatapath<C> {
    /// What ingress looks things up in. `None` is impossible, but only the kernel knows.
    #[inline(always)]
    pub fn received(ctx: C) -> Option<Self> {
        let element = element(0)?;
        let in_force = element.state().config().in_force();

        Some(Self {
            ctx,
            element,
            in_force,
        })
    }

    /// What egress looks things up in, as in [`received`](Self::received).
    #[inline(always)]
    pub fn sent(ctx: C) -> Option<Self> {
        let element = element(0)?;
        let in_force = element.state().config().recorded();

        Some(Self {
            ctx,
            element,
            in_force,
        })
    }

    /// Counts one frame.
    #[inline(always)]
    pub fn count(&self, decision: Decision, verdict: Verdict) {
        let Some(counters) = maps::COUNTERS.get_ptr_mut(maps::DEVICE.load()) else {
            return;
        };
        // SAFETY: the element is this processor's own and has a counter for every slot, and
        // programs do not interrupt each other on it: both run with bottom halves disabled.
        unsafe { *(*counters).get_unchecked_mut(decision.slot(verdict) as usize) += 1 }
    }
}

impl<C: Context> Datapath for KernelDatapath<C> {
    #[inline(always)]
    fn now(&self) -> u32 {
        clock::ticks()
    }

    #[inline(always)]
    fn config(&self) -> &ConfigCell {
        self.element.state().config()
    }

    #[inline(always)]
    fn in_force(&self) -> InForce {
        self.in_force
    }

    #[inline(always)]
    fn page(&self) -> &PageCell {
        self.element.state().page(self.in_force)
    }

    #[inline(always)]
    fn other_page(&self) -> &PageCell {
        self.element.state().other_page(self.in_force)
    }

    #[inline(always)]
    fn index(&self, port: u16) -> usize {
        verifier::opaque(usize::from(u16::from_be(port)))
    }

    #[inline(always)]
    fn occupancy(&self, purpose: Use, port: usize) -> Option<&Occupancy> {
        Some(self.element.state().occupancy(purpose, port))
    }

    #[inline(always)]
    fn single_peer(&self, purpose: Use, port: usize) -> Option<&SinglePeer> {
        Some(self.element.state().single_peer(purpose, port))
    }

    #[inline(always)]
    fn line(&self, place: usize) -> Option<&Line> {
        if place < Element::SIZE {
            return Some(self.element.line(place));
        }
        let element = element(place / Element::SIZE)?;

        Some(element.line(verifier::only_here(place)))
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
        let word = flow.word();
        // SAFETY: a `Flow` is eight bytes, which `word` lays out as it does.
        let flow = unsafe { &*(&raw const word).cast::<Flow>() };
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
            Ok(()) => {
                // An LRU map takes what was never looked up before anything that was, however
                // young it is: a flow would be forgotten before its first answer.
                let _ = self.flow(transport, key);
                Inserted::New
            }
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

    #[inline(always)]
    fn socket(&self, transport: Transport, key: SizedKey<'_>) -> SocketMatch {
        kernel::socket(self.ctx.address(), transport, key)
    }

    #[inline(always)]
    fn tally(&self, tally: Tally) {
        if let Some(counter) = maps::TALLIES.get_ptr_mut(tally as u32) {
            // SAFETY: as in `count`.
            unsafe { *counter += 1 }
        }
    }

    #[inline(always)]
    fn trusts(&self, address: &AddressKey) -> bool {
        maps::TRUSTED.get(&TrieKey::new(address).0).is_some()
    }

    #[inline(always)]
    fn kernel_receives(&self, port: &KernelPortKey) -> bool {
        maps::KERNEL_PORTS.get_ptr(port).is_some()
    }

    #[inline(always)]
    fn locality(&self, address: &AddressKey) -> Locality {
        match maps::LOCAL.get(&TrieKey::new(address).0) {
            Some(&LOCAL) => Locality::Local,
            Some(&DIVERTED) => Locality::Diverted,
            Some(_) | None => Locality::Unknown,
        }
    }

    #[inline(always)]
    fn is_neighbour<A: Address>(&self, address: A) -> bool {
        let key = AddressKey::of_interface(maps::DEVICE.load(), address);
        maps::NEIGHBOURS.get(&TrieKey::new(&key).0).is_some()
    }

    #[inline(always)]
    fn is_own_mac(&self, address: MacAddress) -> bool {
        maps::LINK_ADDRESSES.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn forwards<A: Address>(&self, packet: &RouteKey<A>) -> bool {
        let Some(device) = self.device() else {
            return false;
        };
        let router = match A::FAMILY {
            Family::Ipv4 | Family::Other => device.routes_by[0],
            Family::Ipv6 => device.routes_by[1],
        };
        let interfaces = [router, self.ctx.interface()];

        kernel::forwards(self.ctx.address(), interfaces, packet)
    }

    #[inline(always)]
    fn is_forwarded(&self) -> bool {
        self.ctx.came_in_by() != 0
    }
}
