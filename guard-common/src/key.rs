//! What a flow is looked up by.

use crate::{
    address::{V4, V6},
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
            protocol: tuple.transport as u32,
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
            protocol: tuple.transport as u32,
        }
    }

    #[inline(always)]
    fn sized(&self) -> SizedKey<'_> {
        SizedKey::V6(self)
    }
}
