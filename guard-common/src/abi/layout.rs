//! How large the maps are, and what user space may put into them.

use crate::outcome::Decision;

/// Changes whenever a key, a value or a meaning in any map changes. It is part of the folder name
/// under which the maps are pinned, so that two builds never share maps they read differently.
///
/// An upgrade copies flows and counters from maps of the same name with keys and values of the same
/// sizes. So a map whose contents change in meaning, but not in size, must get another name as well.
pub const LAYOUT_VERSION: u32 = 7;

/// Interfaces that one set of maps can serve.
pub const MAX_DEVICES: u32 = 32;

/// Entries of each flow map, unless the user says otherwise.
pub const DEFAULT_MAX_FLOWS: u32 = 1 << 16;

/// Entries of the map of refused datagrams.
pub const MAX_REFUSED: u32 = 4096;

/// Prefixes that the local table, and those that the user's trust, can hold.
pub const MAX_ADDRESSES: u32 = 16_384;

/// Prefixes of neighbours, of all interfaces together.
pub const MAX_NEIGHBOURS: u32 = 16_384;

/// In the map `local`: packets to such an address end here, by the kernel's local table.
pub const LOCAL: u32 = 1;
/// In the map `local`: another host's, unless the firewall marks a packet and so leads it to a
/// socket here.
pub const DIVERTED: u32 = 2;
/// In the map `local`: the routes alone can tell.
pub const UNDECIDED: u32 = 3;

/// Link addresses that are this host's.
pub const MAX_MAC_ADDRESSES: u32 = 16_384;

/// Ports and addresses at which the kernel itself receives.
pub const MAX_KERNEL_PORTS: u32 = 1024;

/// Counters of one interface: an element of the counter map.
pub type Counters = [u64; Decision::SLOTS as usize];

#[cfg(feature = "user")]
mod user {
    use aya::Pod;

    use crate::{
        abi::device::Device,
        flow::{
            fragment::FragmentKey,
            key::{AddressKey, FlowKeyV4, FlowKeyV6, KernelPortKey},
            state::Flow,
        },
        frame::ethernet::MacAddress,
    };

    // SAFETY: integers at multiples of their size, without padding.
    unsafe impl Pod for FlowKeyV4 {}
    // SAFETY: integers at multiples of their size, without padding.
    unsafe impl Pod for FlowKeyV6 {}
    // SAFETY: integers at multiples of their size, without padding.
    unsafe impl Pod for Flow {}
    // SAFETY: integers at multiples of their size, without padding.
    unsafe impl Pod for FragmentKey {}
    // SAFETY: integers at multiples of their size, without padding.
    unsafe impl Pod for AddressKey {}
    // SAFETY: integers at multiples of their size, without padding.
    unsafe impl Pod for KernelPortKey {}
    // SAFETY: integers at multiples of their size, without padding.
    unsafe impl Pod for Device {}
    // SAFETY: an integer.
    unsafe impl Pod for MacAddress {}
}
