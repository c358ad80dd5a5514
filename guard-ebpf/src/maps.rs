//! The maps: who writes them, who reads them, and what happens when they are full.
//!
//! The daemon sets the capacities at load time. Every map is shared by all interfaces of a network
//! namespace and outlives the daemon.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use guard_common::{
    abi::{
        device::Device,
        layout::{
            Counters, DEFAULT_MAX_FLOWS, MAX_ADDRESSES, MAX_DEVICES, MAX_KERNEL_PORTS,
            MAX_MAC_ADDRESSES, MAX_NEIGHBOURS, MAX_REFUSED,
        },
        state::Element,
    },
    flow::{
        fragment::FragmentKey,
        key::{AddressKey, FlowKeyV4, FlowKeyV6, KernelPortKey},
        state::Flow,
    },
    frame::ethernet::MacAddress,
    outcome::Tally,
};

const MAX_FLOWS: usize = DEFAULT_MAX_FLOWS as usize;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// The slot of the interface this copy of the programs is attached to. Set at load time.
#[unsafe(no_mangle)]
pub static DEVICE: Global<u32> = Global::new(0);

/// TCP over IPv4. Written by egress, kept alive by ingress.
///
/// When full, the flow unused for longest is forgotten.
#[btf_map(name = "flows_tcp4")]
pub static FLOWS_TCP4: LruHashMap<FlowKeyV4, Flow, MAX_FLOWS> = LruHashMap::new();

/// UDP and UDP-Lite over IPv4. Separate from TCP, because answered queries would evict idle connections. As [`FLOWS_TCP4`] otherwise.
#[btf_map(name = "flows_udp4")]
pub static FLOWS_UDP4: LruHashMap<FlowKeyV4, Flow, MAX_FLOWS> = LruHashMap::new();

/// TCP over IPv6, as [`FLOWS_TCP4`].
#[btf_map(name = "flows_tcp6")]
pub static FLOWS_TCP6: LruHashMap<FlowKeyV6, Flow, MAX_FLOWS> = LruHashMap::new();

/// UDP and UDP-Lite over IPv6, as [`FLOWS_UDP4`].
#[btf_map(name = "flows_udp6")]
pub static FLOWS_UDP6: LruHashMap<FlowKeyV6, Flow, MAX_FLOWS> = LruHashMap::new();

/// What both programs ask of every frame: the configuration, the guarded ports, and which of them
/// and which tuples are in use. Written by the daemon a word at a time, and by egress and rescues a
/// byte. Where there is room for many flows, more elements follow, which hold tuples alone.
#[btf_map(name = "state")]
pub static STATE: Array<Element, 1, MMAPABLE> = Array::new();

/// What the daemon knows about each interface.
#[btf_map(name = "devices")]
pub static DEVICES: Array<Device, { MAX_DEVICES as usize }> = Array::new();

/// Frames by outcome, verdict, family and protocol, one element an interface. Written by both
/// programs.
#[btf_map(name = "counters")]
pub static COUNTERS: PerCpuArray<Counters, { MAX_DEVICES as usize }> = PerCpuArray::new();

/// Datagrams whose first fragment was refused, and when. Written and read by ingress.
///
/// When full, the mark unused for longest is forgotten and its later fragments pass.
#[btf_map(name = "refused")]
pub static REFUSED: LruHashMap<FragmentKey, u32, { MAX_REFUSED as usize }> = LruHashMap::new();

/// What is counted beside the frames, by [`Tally`]. Written by both programs.
#[btf_map(name = "tallies")]
pub static TALLIES: PerCpuArray<u64, { Tally::COUNT }> = PerCpuArray::new();

/// Addresses of this host, broadcast and multicast included, and those of other hosts that the
/// firewall may lead here. Written by the daemon from the kernel's routes, read only on hosts that forward, bridge or divert.
#[btf_map(name = "local")]
pub static LOCAL: LpmTrie<AddressKey, u32, { MAX_ADDRESSES as usize }> = LpmTrie::new();

/// Prefixes that an interface leads to without a gateway, by the slot of the interface. Written by the
/// daemon from addresses and routes, read for answers to multicast.
#[btf_map(name = "neighbours")]
pub static NEIGHBOURS: LpmTrie<AddressKey, u32, { MAX_NEIGHBOURS as usize }> = LpmTrie::new();

/// MAC addresses of this host's interfaces. Written by the daemon, read only where frames for others are bridged. It must hold no other host's, so it takes memory as it fills.
#[btf_map(name = "link_addresses")]
pub static LINK_ADDRESSES: HashMap<MacAddress, u32, { MAX_MAC_ADDRESSES as usize }, NO_PREALLOC> =
    HashMap::new();

/// Ports and addresses at which the kernel itself receives. Written by the daemon, read only for ports that are in it.
#[btf_map(name = "kernel_ports")]
pub static KERNEL_PORTS: HashMap<KernelPortKey, u32, { MAX_KERNEL_PORTS as usize }, NO_PREALLOC> =
    HashMap::new();

/// Prefixes that the user trusts. Written by the daemon.
#[btf_map(name = "trusted")]
pub static TRUSTED: LpmTrie<AddressKey, u32, { MAX_ADDRESSES as usize }> = LpmTrie::new();
