//! What a flow is looked up by.

use core::mem;

use crate::{
    frame::{
        address::{Address, V4, V6},
        ip::{Network, Tuple},
    },
    outcome::Family,
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

/// A family of addresses, and the key of a flow between two of them.
pub trait FlowAddress: Network {
    /// The key of a flow.
    type FlowKey: FlowKey<Address = Self>;
}

impl FlowAddress for V4 {
    type FlowKey = FlowKeyV4;
}

impl FlowAddress for V6 {
    type FlowKey = FlowKeyV6;
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
        let addresses = u64::from(tuple.local.0) | u64::from(tuple.remote.0) << 32;
        let words = [addresses, ports_and_protocol(tuple)];
        // SAFETY: two words are as long as the key, and any bits of theirs are one.
        unsafe { mem::transmute::<[u64; 2], Self>(words) }
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
        let (local, remote) = (tuple.local, tuple.remote);
        let words = [
            local.high,
            local.low,
            remote.high,
            remote.low,
            ports_and_protocol(tuple),
        ];
        // SAFETY: five words are as long as the key, and any bits of theirs are one.
        unsafe { mem::transmute::<[u64; 5], Self>(words) }
    }

    #[inline(always)]
    fn sized(&self) -> SizedKey<'_> {
        SizedKey::V6(self)
    }
}

/// The end of a key as a little-endian word.
///
/// The kernel hashes a key four bytes at a time, right after it was stored (`jhash2`,
/// include/linux/jhash.h). A processor hands over what one store has written, but waits for a load of
/// what two have: stored by fields, the ports would cost every look-up that.
#[inline(always)]
fn ports_and_protocol<A>(tuple: &Tuple<A>) -> u64 {
    u64::from(tuple.local_port)
        | u64::from(tuple.remote_port) << 16
        | u64::from(tuple.transport.number()) << 32
}

/// An address in a trie of prefixes.
///
/// The family is part of it, so that no IPv6 address can pass for an IPv4 one. Packed, because
/// the length of the prefix comes before it in the key of a trie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C, packed(4))]
pub struct AddressKey {
    /// 4 or 6; where each interface has prefixes of its own, its slot stands above.
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

    /// The key of `address` among those of the interface in `slot`.
    #[inline(always)]
    pub fn of_interface<A: Address>(slot: u32, address: A) -> Self {
        let key = Self::new(address);

        Self {
            family: slot << 8 | key.family,
            ..key
        }
    }

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

/// A local UDP port and an address at which the kernel itself receives there, or the unspecified
/// address for all of a family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct KernelPortKey {
    /// The address in network byte order; IPv4 fills the first four bytes.
    pub address: V6,
    /// The port in network byte order.
    pub port: u16,
    /// 4 or 6.
    pub family: u16,
    /// Zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<KernelPortKey>() == 24);

impl KernelPortKey {
    /// The key of `port`, in network byte order, at `address`.
    #[inline(always)]
    pub fn new<A: Address>(address: A, port: u16) -> Self {
        Self {
            address: address.widened(),
            port,
            family: match A::FAMILY {
                Family::Ipv4 | Family::Other => 4,
                Family::Ipv6 => 6,
            },
            padding: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::transport::Transport;

    #[test]
    fn a_key_of_words_has_each_field_in_its_place() {
        fn tuple<A>(local: A, remote: A) -> Tuple<A> {
            Tuple {
                transport: Transport::UdpLite,
                local,
                remote,
                local_port: 0x1122,
                remote_port: 0x3344,
            }
        }

        let (local, remote) = (V4(0x0102_0304), V4(0x0506_0708));
        let key = FlowKeyV4 {
            local,
            remote,
            local_port: 0x1122,
            remote_port: 0x3344,
            protocol: 136,
        };
        assert_eq!(FlowKeyV4::new(&tuple(local, remote)), key);

        let (local, remote) = (V6 { high: 1, low: 2 }, V6 { high: 3, low: 4 });
        let key = FlowKeyV6 {
            local,
            remote,
            local_port: 0x1122,
            remote_port: 0x3344,
            protocol: 136,
        };
        assert_eq!(FlowKeyV6::new(&tuple(local, remote)), key);
    }
}
