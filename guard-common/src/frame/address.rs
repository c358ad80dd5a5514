//! Addresses of both families, and what they do differently.

use crate::outcome::Family;

/// An address of one family.
pub trait Address: Copy + Eq {
    /// The metric label.
    const FAMILY: Family;
    /// The absent address: all zero bits.
    const UNSPECIFIED: Self;

    /// Whether this is a multicast address, or the limited broadcast address.
    fn is_group(self) -> bool;

    /// Whether what goes to this address is for this host, whatever the routes say: to a group, or
    /// over IPv4 to the unspecified address, which is a broadcast unless it is sent
    /// (`ip_route_input_slow`, net/ipv4/route.c).
    fn is_always_local(self) -> bool;

    /// Whether this is one of these addresses of its family.
    fn is_among<const N: usize>(self, ipv4: &[V4; N], ipv6: &[V6; N]) -> bool;

    /// The address in the room of the larger family: IPv4 fills half of the first word.
    fn widened(self) -> V6;

    /// The sum of products of the address and both ports with secret odd numbers. The highest bits
    /// are those that count.
    fn hash(self, ports: u32, seeds: &[u64; 3]) -> u64;
}

/// An IPv4 address, in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct V4(pub u32);

/// An IPv6 address as two words in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct V6 {
    /// The first eight bytes.
    pub high: u64,
    /// The last eight bytes.
    pub low: u64,
}

impl Address for V4 {
    const FAMILY: Family = Family::Ipv4;
    const UNSPECIFIED: Self = Self(0);

    #[inline(always)]
    fn is_group(self) -> bool {
        let address = u32::from_be(self.0);
        address >> 28 == 0xe || address == u32::MAX
    }

    #[inline(always)]
    fn is_always_local(self) -> bool {
        let address = u32::from_be(self.0);
        // The last address and the first.
        address >> 28 == 0xe || address.wrapping_add(1) <= 1
    }

    #[inline(always)]
    fn is_among<const N: usize>(self, ipv4: &[V4; N], _: &[V6; N]) -> bool {
        ipv4.contains(&self)
    }

    #[inline(always)]
    fn widened(self) -> V6 {
        V6 {
            high: u64::from(self.0),
            low: 0,
        }
    }

    /// All of it fits into one word.
    #[inline(always)]
    fn hash(self, ports: u32, seeds: &[u64; 3]) -> u64 {
        (u64::from(self.0) << 32 | u64::from(ports)).wrapping_mul(seeds[0])
    }
}

impl Address for V6 {
    const FAMILY: Family = Family::Ipv6;
    const UNSPECIFIED: Self = Self { high: 0, low: 0 };

    #[inline(always)]
    fn is_group(self) -> bool {
        u64::from_be(self.high) >> 56 == 0xff
    }

    #[inline(always)]
    fn is_always_local(self) -> bool {
        self.is_group()
    }

    #[inline(always)]
    fn is_among<const N: usize>(self, _: &[V4; N], ipv6: &[V6; N]) -> bool {
        ipv6.contains(&self)
    }

    #[inline(always)]
    fn widened(self) -> V6 {
        self
    }

    #[inline(always)]
    fn hash(self, ports: u32, seeds: &[u64; 3]) -> u64 {
        let ports = u64::from(ports).wrapping_mul(seeds[0]);
        let high = self.high.wrapping_mul(seeds[1]);

        self.low
            .wrapping_mul(seeds[2])
            .wrapping_add(high)
            .wrapping_add(ports)
    }
}

impl From<[u8; 4]> for V4 {
    #[inline(always)]
    fn from(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }
}

impl From<[u8; 16]> for V6 {
    #[inline(always)]
    fn from(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            high: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        }
    }
}

impl From<V4> for [u8; 4] {
    fn from(address: V4) -> Self {
        address.0.to_ne_bytes()
    }
}

impl From<V6> for [u8; 16] {
    fn from(address: V6) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.high.to_ne_bytes());
        bytes[8..].copy_from_slice(&address.low.to_ne_bytes());
        bytes
    }
}
