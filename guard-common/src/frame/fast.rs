//! The short way for plain packets.
//!
//! TCP and UDP without IP options, extension headers or fragments are nearly all of what a host
//! receives and sends, and all of what a cheap flood is made of. Read at fixed offsets they are
//! decided in a fraction of the time. Whatever else comes is left to the general way, which decides
//! the same.

use crate::{
    frame::{
        address::{V4, V6},
        bytes::{Header, Packet},
        headers::{EthHdr, Ipv4Header, Ipv6Header, Ports, TcpFlags, VlanTag},
        ip::{Network, Tuple},
        transport::Transport,
    },
    outcome::Direction,
};

/// Where a plain packet's network header starts.
const NETWORK: usize = EthHdr::LEN;

/// All the headers that a packet is told by, in one piece: the end of the frame is looked at once.
/// `T` is a [`VlanTag`], or nothing.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Headers<T, I> {
    ethernet: EthHdr,
    tag: T,
    network: I,
    ports: Ports,
}

impl<T: Header, I: Header> Header for Headers<T, I> {
    #[inline(always)]
    unsafe fn copy_from(bytes: *const u8) -> Self {
        let network = NETWORK + size_of::<T>();
        // SAFETY: the caller vouches for every byte of all four, which lie back to back.
        unsafe {
            Self {
                ethernet: EthHdr::copy_from(bytes),
                tag: T::copy_from(bytes.add(NETWORK)),
                network: I::copy_from(bytes.add(network)),
                ports: Ports::copy_from(bytes.add(network + size_of::<I>())),
            }
        }
    }
}

/// What may stand between the Ethernet and the network header of a plain packet.
pub trait Tag: Header {
    /// The type of what the frame carries, in network byte order.
    fn carried(ethernet: EthHdr, tag: Self) -> u16;
}

impl Tag for () {
    #[inline(always)]
    fn carried(ethernet: EthHdr, (): ()) -> u16 {
        ethernet.ether_type
    }
}

impl Tag for VlanTag {
    #[inline(always)]
    fn carried(_: EthHdr, tag: Self) -> u16 {
        tag.ether_type
    }
}

/// The headers of the shortest plain packet, which every plain packet is as long as.
pub struct FastHeaders<T>(Headers<T, Ipv4Header>);

impl<T: Tag> FastHeaders<T> {
    /// Reads a frame that may be a plain packet. `None` says that it is none.
    #[inline(always)]
    pub fn read(frame: &(impl Packet + ?Sized)) -> Option<Self> {
        frame.read(0).map(Self)
    }

    /// The type of what the frame carries, in network byte order.
    #[inline(always)]
    pub fn carried(&self) -> u16 {
        T::carried(self.0.ethernet, self.0.tag)
    }

    /// Reads the plain packet of a frame that carries IPv4.
    #[inline(always)]
    pub fn ipv4(self) -> Option<FastPacket<V4>> {
        FastPacket::from_headers(self.0)
    }

    /// Reads the plain packet of a frame that carries IPv6.
    #[inline(always)]
    pub fn ipv6(self, frame: &(impl Packet + ?Sized)) -> Option<FastPacket<V6>> {
        FastPacket::from_headers(frame.read::<Headers<T, Ipv6Header>>(0)?)
    }
}

/// What the first look at a plain packet has found. The destination is read later: a flood is decided
/// without it.
#[derive(Clone, Copy, Debug)]
pub struct FastPacket<A> {
    /// The protocol that owns the ports.
    pub transport: Transport,
    /// Who has sent it.
    pub source: A,
    source_port: u16,
    destination_port: u16,
}

impl<A: Network> FastPacket<A> {
    #[inline(always)]
    fn from_headers<T: Copy>(headers: Headers<T, A::Header>) -> Option<Self> {
        let ports = headers.ports;

        Some(Self {
            transport: Transport::from_number(A::fast_protocol(headers.network)?)?,
            source: A::ends(headers.network).0,
            source_port: ports.source,
            destination_port: ports.destination,
        })
    }

    /// This host's port in network byte order.
    #[inline(always)]
    pub fn local_port(&self, direction: Direction) -> u16 {
        match direction {
            Direction::Ingress => self.destination_port,
            Direction::Egress => self.source_port,
        }
    }

    /// Reads where the packet goes to, behind a tag or none, as [`read_tuple`](Self::read_tuple) reads both
    /// ends.
    #[inline(always)]
    pub fn destination<T: Tag>(frame: &(impl Packet + ?Sized)) -> Option<A> {
        let headers = frame.read_again::<Headers<T, A::Header>>(0)?;

        Some(A::ends(headers.network).1)
    }

    /// Reads both ends of an untagged packet anew. `None` cannot be, for a frame that was read
    /// before.
    #[inline(always)]
    pub fn read_tuple(frame: &(impl Packet + ?Sized), direction: Direction) -> Option<Tuple<A>> {
        let headers = frame.read_again::<Headers<(), A::Header>>(0)?;
        let transport = Transport::from_number(A::protocol(headers.network))?;

        Some(Tuple::new(
            transport,
            A::ends(headers.network),
            headers.ports,
            direction,
        ))
    }
}

/// The TCP flags of an untagged plain packet, as [`Ip::tcp_flags`](crate::frame::ip::Ip::tcp_flags)
/// reads them.
#[inline(always)]
pub fn tcp_flags<A: Network>(frame: &(impl Packet + ?Sized), tuple: &Tuple<A>) -> TcpFlags {
    if tuple.transport != Transport::Tcp {
        return TcpFlags::default();
    }

    frame
        .read::<u8>(NETWORK + size_of::<A::Header>() + TcpFlags::OFFSET)
        .map(TcpFlags::new)
        .unwrap_or_default()
}
