//! What a flow is looked up by.

use crate::{
    address::{Address, V4, V6},
    outcome::Family,
    parse::Tuple,
};

/// The key of a flow in the maps of one family.
pub trait FlowKey: Copy {
    /// The address of that family.
    type Address;

    /// The key of a flow between these ends.
    fn new(tuple: &Tuple<Self::Address>) -> Self;

    /// The key as what it is. TCP and UDP have maps of their own in each family: answered UDP
    /// queries must not evict idle TCP connections, and an IPv4 key is the shorter one.
    fn sized(&self) -> SizedKey<'_>;
}

/// A key of either size.
#[derive(Clone, Copy, Debug)]
pub enum SizedKey<'a> {
    /// Of an IPv4 flow.
    V4(&'a FlowKeyV4),
    /// Of an IPv6 flow.
    V6(&'a FlowKeyV6),
}

/// An IPv4 flow. Addresses and ports are in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C, align(8))]
pub struct FlowKeyV4 {
    /// This host's address.
    pub local: V4,
    /// The peer's address, or 0 for any.
    pub remote: V4,
    /// This host's port.
    pub local_port: u16,
    /// The peer's port, or 0 for any.
    pub remote_port: u16,
    /// The transport protocol's IANA number.
    pub protocol: u32,
}

/// An IPv6 flow. Addresses and ports are in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C, align(8))]
pub struct FlowKeyV6 {
    /// This host's address.
    pub local: V6,
    /// The peer's address, or 0 for any.
    pub remote: V6,
    /// This host's port.
    pub local_port: u16,
    /// The peer's port, or 0 for any.
    pub remote_port: u16,
    /// The transport protocol's IANA number.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FlowKeyV4>() == 16);
const _: () = assert!(size_of::<FlowKeyV6>() == 40);

impl FlowKey for FlowKeyV4 {
    type Address = V4;

    #[inline(always)]
    fn new(tuple: &Tuple<V4>) -> Self {
        Self {
            local: tuple.local,
            remote: tuple.remote,
            local_port: tuple.local_port,
            remote_port: tuple.remote_port,
            protocol: u32::from(tuple.transport.number()),
        }
    }

    #[inline(always)]
    fn sized(&self) -> SizedKey<'_> {
        SizedKey::V4(self)
    }
}

impl FlowKey for FlowKeyV6 {
    type Address = V6;

    #[inline(always)]
    fn new(tuple: &Tuple<V6>) -> Self {
        Self {
            local: tuple.local,
            remote: tuple.remote,
            local_port: tuple.local_port,
            remote_port: tuple.remote_port,
            protocol: u32::from(tuple.transport.number()),
        }
    }

    #[inline(always)]
    fn sized(&self) -> SizedKey<'_> {
        SizedKey::V6(self)
    }
}

/// An address in a trie of prefixes.
///
/// The family is part of it, so that no IPv6 address can pass for an IPv4 one. Packed, because
/// the length of the prefix comes before it in the key of a trie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C, packed(4))]
pub struct AddressKey {
    /// 4 or 6.
    pub family: u32,
    /// The address in network byte order; IPv4 fills the first four bytes.
    pub address: V6,
}

const _: () = assert!(size_of::<AddressKey>() == 20);

impl AddressKey {
    /// Bits of a key that stand before those of the address.
    pub const FAMILY_BITS: u32 = 32;
    /// Bits of a whole key.
    pub const BITS: u32 = Self::FAMILY_BITS + 128;

    /// The key of `address`.
    #[inline(always)]
    pub fn new<A: Address>(address: A) -> Self {
        Self {
            family: match A::FAMILY {
                Family::Ipv4 | Family::Other => 4,
                Family::Ipv6 => 6,
            },
            address: address.widened(),
        }
    }
}
