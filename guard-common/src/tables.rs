//! The look-ups that a decision may make.

use crate::{
    address::Address,
    config::{ConfigCell, Device},
    filter::Line,
    flow::{Flow, FlowCell},
    fragment::{FragmentKey, RefusedAt},
    key::{AddressKey, KernelPortKey, SizedKey},
    link::LinkAddress,
    owner::Owner,
    parse::Transport,
    ports::{GuardedPorts, Occupancy},
    route::RouteKey,
};

/// Which ports are in use, and for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Use {
    /// TCP flows.
    Tcp = 0,
    /// UDP flows, queries included.
    Udp = 1,
    /// UDP-Lite flows.
    UdpLite = 2,
    /// UDP queries to a group, which any neighbour may answer.
    Query = 3,
}

impl Use {
    /// Occupancy tables there are.
    pub const COUNT: usize = 4;

    /// What a flow of this transport uses a port for.
    #[inline(always)]
    pub const fn flow(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
            Transport::UdpLite => Self::UdpLite,
        }
    }
}

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
pub enum Socket {
    /// Nothing that would take it.
    None,
    /// A socket whose peer is the sender: connected, or closing, or being opened.
    Connected,
    /// A socket that hears everybody.
    Listener,
}

/// What the daemon has told of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Locality {
    /// It is in the local table.
    Here,
    /// It is another host's, unless the firewall leads a packet to a socket here.
    Diverted,
    /// Nothing: the routes have to tell.
    Untold,
}

/// What is counted beside the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Tally {
    /// A flow was put back that the map had evicted, or never held.
    RescuedAbsent = 0,
    /// A flow was put back that had expired.
    RescuedExpired = 1,
    /// In monitor mode: a connected socket would have lost a packet.
    WouldDropConnected = 2,
    /// In monitor mode: a listener would have lost a packet.
    WouldDropListener = 3,
}

impl Tally {
    /// Tallies there are.
    pub const COUNT: usize = 4;
}

/// The maps, the clock and the interface, as a decision sees them.
pub trait Tables {
    /// The time in ticks.
    fn now(&self) -> u32;

    /// What the daemon has configured.
    fn config(&self) -> &ConfigCell;

    /// The page of guarded ports that is in force.
    fn guarded(&self) -> &GuardedPorts;

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
    fn owner(&self, purpose: Use, port: usize) -> Option<&Owner>;

    /// The line of the tuple filter in which this place of the map `state` is. `None` is for a
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
    fn socket(&self, transport: Transport, key: SizedKey<'_>) -> Socket;

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
    fn is_own_link(&self, address: LinkAddress) -> bool;

    /// Whether the kernel's routes send this packet on to another host.
    fn forwards<A: Address>(&self, packet: &RouteKey<A>) -> bool;

    /// Whether the frame came in by an interface before it went out by this one.
    fn passes_through(&self) -> bool;
}
