//! The look-ups that a decision may make.

use crate::{
    abi::{
        config::ConfigCell,
        device::Device,
        page::{InForce, PageCell},
    },
    flow::{
        fragment::{FragmentKey, RefusedAt},
        key::{AddressKey, KernelPortKey, SizedKey},
        state::{Flow, FlowCell},
        timer::Timeouts,
    },
    frame::{address::Address, ethernet::MacAddress, ip::Tuple, transport::Transport},
    outcome::Tally,
    ports::{
        bloom::Line,
        class::GuardedPorts,
        occupancy::{Occupancy, Use},
        peer::SinglePeer,
    },
};

/// What came of an insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// The flow is in the map now.
    New,
    /// Another processor was faster.
    Exists,
    /// The map had no room.
    Failed,
}

/// What the kernel has for a packet that comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketMatch {
    /// Nothing that would take it.
    None,
    /// A socket whose peer is the sender: connected, or closing, or being opened.
    Connected,
    /// A socket that takes packets of any peer.
    Listener,
}

/// What the daemon has told of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Locality {
    /// It is in the local table.
    Local,
    /// It is another host's, unless the firewall leads a packet to a socket here.
    Diverted,
    /// Nothing: the routes have to tell.
    Unknown,
}

/// The maps, the clock and the interface, as a decision sees them.
pub trait Datapath {
    /// The time in ticks.
    fn now(&self) -> u32;

    /// What the daemon has configured.
    fn config(&self) -> &ConfigCell;

    /// What was in force when the frame came, or, for what is sent, what it is recorded by: the same
    /// for all questions about it.
    fn in_force(&self) -> InForce;

    /// The page that was in force then.
    fn page(&self) -> &PageCell;

    /// The other page, which is about to come into force where egress is told of
    /// [`BOTH_PAGES`](InForce::BOTH_PAGES).
    fn other_page(&self) -> &PageCell;

    /// Which ports are guarded.
    #[inline(always)]
    fn guarded(&self) -> &GuardedPorts {
        self.page().ports()
    }

    /// How long flows live.
    #[inline(always)]
    fn timeouts(&self) -> &Timeouts {
        self.page().timeouts()
    }

    /// A port, given in network byte order, as an index of what there is one of for every port.
    ///
    /// A verifier may need to be shown that the index is below 65,536.
    #[inline(always)]
    fn index(&self, port: u16) -> usize {
        usize::from(u16::from_be(port))
    }

    /// The occupancy of one port, by its index. There is one for every port; `None` is for a
    /// verifier that cannot know.
    fn occupancy(&self, purpose: Use, port: usize) -> Option<&Occupancy>;

    /// With whom alone one port is used, as [`occupancy`](Self::occupancy) has it.
    fn single_peer(&self, purpose: Use, port: usize) -> Option<&SinglePeer>;

    /// The line of the Bloom filter in which this place of the map `state` is. `None` is for a
    /// verifier, as above.
    fn line(&self, place: usize) -> Option<&Line>;

    /// The flow with this key.
    fn flow(&self, transport: Transport, key: SizedKey<'_>) -> Option<&FlowCell>;

    /// Puts a flow into its map, unless one is there.
    fn insert(&self, transport: Transport, key: SizedKey<'_>, flow: &Flow) -> Inserted;

    /// The interface the frame came in by. `None` is for a verifier, as above.
    fn device(&self) -> Option<&Device>;

    /// The mark of a refused datagram.
    fn refused(&self, key: &FragmentKey) -> Option<&RefusedAt>;

    /// Marks a datagram as refused at `now`. A mark that finds no room is forgotten.
    fn refuse(&self, key: &FragmentKey, now: u32);

    /// What the kernel has for a packet of this flow.
    fn socket(&self, transport: Transport, key: SizedKey<'_>) -> SocketMatch;

    /// Counts something beside the frames.
    fn tally(&self, tally: Tally);

    /// Whether the user trusts this remote address.
    fn trusts(&self, address: &AddressKey) -> bool;

    /// Whether the kernel itself receives at this port and address, as far as the daemon has told.
    fn kernel_receives(&self, port: &KernelPortKey) -> bool;

    /// Whether packets to this address end here, as far as the daemon has told.
    fn locality(&self, address: &AddressKey) -> Locality;

    /// Whether this address is that of a neighbour: a route leads to it by the interface, without a
    /// gateway.
    fn is_neighbour<A: Address>(&self, address: A) -> bool;

    /// Whether an interface of this host has this link address, as far as the daemon has told.
    fn is_own_mac(&self, address: MacAddress) -> bool;

    /// Whether the kernel's routes send this packet on to another host.
    fn forwards<A: Address>(&self, packet: &RouteKey<A>) -> bool;

    /// Whether the frame came in by an interface before it went out by this one.
    fn is_forwarded(&self) -> bool;
}

/// All that rules and routes may tell a packet by, as far as XDP can see it. Ports are in network
/// byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteKey<A> {
    /// Where the packet comes from.
    pub source: A,
    /// Where it goes.
    pub destination: A,
    /// Its protocol's IANA number.
    pub protocol: u8,
    /// Its source port; 0 where it has none.
    pub source_port: u16,
    /// Its destination port; 0 where it has none.
    pub destination_port: u16,
    /// Its type of service, or the traffic class and flow label of IPv6 as they are in memory.
    pub class: u32,
}

impl<A: Copy> RouteKey<A> {
    /// The key of a packet that this host receives in this conversation.
    #[inline(always)]
    pub fn received(tuple: &Tuple<A>, class: u32) -> Self {
        Self {
            source: tuple.remote,
            destination: tuple.local,
            protocol: tuple.transport.number(),
            source_port: tuple.remote_port,
            destination_port: tuple.local_port,
            class,
        }
    }

    /// The key of a packet that has no ports.
    #[inline(always)]
    pub const fn without_ports(source: A, destination: A, protocol: u8, class: u32) -> Self {
        Self {
            source,
            destination,
            protocol,
            source_port: 0,
            destination_port: 0,
            class,
        }
    }
}
