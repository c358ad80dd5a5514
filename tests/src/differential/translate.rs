//! The reference's words in those of guard-common, for what has no name outside: keys, flows and
//! configurations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use guard_common::{
    abi::{
        config::Config,
        device::{Device, MAX_OWN_ADDRESSES},
        layout::LAYOUT_VERSION,
        page::{InForce, Page},
    },
    flow::{
        fragment::FragmentKey,
        key::{AddressKey, FlowKeyV4, FlowKeyV6, KernelPortKey, SizedKey},
        state::{self, Phase},
        timer::Timeouts,
    },
    frame::address::{V4, V6},
    outcome::Family,
    ports::{
        class::{GuardedPorts, PORTS},
        occupancy::{Occupancy, Use},
    },
};
use guard_reference::{
    memory::{Datagram, Flow, FlowId, Purpose, Stage},
    policy::{self, Host, Policy, Prefix},
};

use crate::memory::Key;

/// What a flow is looked up by.
pub fn key(id: &FlowId) -> Key {
    let (local, local_port) = id.local;
    let remote = id.remote.unwrap_or_else(|| policy::unspecified(local));
    let (local_port, remote_port) = (local_port.to_be(), id.remote_port.to_be());
    let protocol = u32::from(id.protocol);
    match (local, remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => Key::V4(FlowKeyV4 {
            local: local.octets().into(),
            remote: remote.octets().into(),
            local_port,
            remote_port,
            protocol,
        }),
        (local, remote) => Key::V6(FlowKeyV6 {
            local: octets(local).into(),
            remote: octets(remote).into(),
            local_port,
            remote_port,
            protocol,
        }),
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Both ends of the flow with this key: protocol, local, remote.
pub fn ends(key: SizedKey<'_>) -> (u8, (IpAddr, u16), (IpAddr, u16)) {
    let v4 = |address: V4| IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::from(address)));
    let v6 = |address: V6| IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::from(address)));
    let (local, remote, local_port, remote_port, protocol) = match key {
        SizedKey::V4(key) => (
            v4(key.local),
            v4(key.remote),
            key.local_port,
            key.remote_port,
            key.protocol,
        ),
        SizedKey::V6(key) => (
            v6(key.local),
            v6(key.remote),
            key.local_port,
            key.remote_port,
            key.protocol,
        ),
    };
    (
        protocol as u8,
        (local, u16::from_be(local_port)),
        (remote, u16::from_be(remote_port)),
    )
}

/// A flow as the maps hold it.
pub fn flow(flow: &Flow) -> state::Flow {
    state::Flow {
        last_seen: flow.seen,
        phase: match flow.stage {
            Stage::SynSent => Phase::Opening,
            Stage::Established => Phase::Established,
            Stage::Datagram => Phase::Datagram,
            Stage::Dns => Phase::Dns,
            Stage::Query => Phase::Multicast,
        } as u8,
        fin_in: u8::from(flow.fin_there),
        fin_out: u8::from(flow.fin_here),
        reset: u8::from(flow.reset),
    }
}

/// What a port is used for.
pub const fn purpose(purpose: Purpose) -> Use {
    match purpose {
        Purpose::Tcp => Use::Tcp,
        Purpose::Udp => Use::Udp,
        Purpose::UdpLite => Use::UdpLite,
        Purpose::Query => Use::Multicast,
    }
}

/// What a refused datagram is looked up by.
pub fn datagram(datagram: &Datagram) -> FragmentKey {
    let id = if datagram.source.is_ipv4() {
        u32::from((datagram.id as u16).to_be())
    } else {
        datagram.id.to_be()
    };
    FragmentKey {
        source: address(datagram.source).address,
        destination: address(datagram.destination).address,
        id,
        protocol: datagram.protocol.map_or(256, u32::from),
    }
}

/// An address in a trie.
pub fn address(address: IpAddr) -> AddressKey {
    match address {
        IpAddr::V4(address) => AddressKey::new(V4::from(address.octets())),
        IpAddr::V6(address) => AddressKey::new(V6::from(address.octets())),
    }
}

/// A port and an address at which the kernel receives.
pub fn kernel_port((address, port): (IpAddr, u16)) -> KernelPortKey {
    match address {
        IpAddr::V4(address) => KernelPortKey::new(V4::from(address.octets()), port.to_be()),
        IpAddr::V6(address) => KernelPortKey::new(V6::from(address.octets()), port.to_be()),
    }
}

/// An address from a trie.
pub fn ip(key: &AddressKey) -> IpAddr {
    let octets = <[u8; 16]>::from(key.address);
    if key.family == 4 {
        IpAddr::from(octets[..4].try_into().unwrap_or([0; 4]))
    } else {
        IpAddr::from(octets)
    }
}

/// What the daemon would configure.
pub fn config(policy: &Policy, host: &Host) -> Config {
    let (first, last) = policy.range;
    let special = policy.monitor || {
        let page = page(policy, host);
        (first..=last).any(|port| page.special[usize::from(port / 32)] >> (port % 32) & 1 != 0)
    };

    let in_force = InForce::new(first, last, 0)
        .with(InForce::FORWARDS, host.some_forward)
        .with(InForce::SOURCES, !policy.trusted.is_empty())
        .with(InForce::SPECIAL, special)
        .with(InForce::MONITOR, policy.monitor)
        .with(InForce::KERNEL_PORTS, !policy.kernel.is_empty())
        .with(InForce::ANY_REMOTE_PORT, policy.by_address)
        .with(InForce::RESCUE, policy.rescue);
    Config {
        layout: LAYOUT_VERSION,
        epoch: u32::from(Occupancy::FIRST_EPOCH),
        in_force,
        recorded: in_force,
        filter: crate::setup::FILTER,
        invalidations: 0,
        reserved: 0,
    }
}

/// The page that the daemon would fill.
pub fn page(policy: &Policy, host: &Host) -> Box<Page> {
    let mut page = Box::new(Page::EMPTY);
    page.ports = *ports(policy);
    page.special = crate::setup::special(&page.ports);
    if policy.monitor {
        for socket in &host.sockets {
            put(&mut page.special, socket.local.1, true);
        }
    }
    page.own.salt = crate::setup::SALT;
    let table = host.local_table.iter().filter(|prefix| is_host(prefix));
    for prefix in host.addresses.iter().chain(table) {
        match prefix.address {
            IpAddr::V4(address) => page.own.add_v4(address.octets().into()),
            IpAddr::V6(address) => page.own.add_v6(address.octets().into()),
        };
    }
    for prefix in &policy.trusted {
        let key = address(prefix.address);
        crate::setup::hint(&mut page, &key, u32::from(prefix.bits));
    }
    let timers = &policy.timers;
    page.timeouts = Timeouts {
        tcp_syn: timers.tcp_syn,
        tcp_established: timers.tcp_established,
        tcp_transitory: timers.tcp_transitory,
        udp: timers.udp,
        udp_dns: timers.udp_dns,
        multicast: timers.multicast,
        fragment: timers.fragment,
    };
    page
}

fn is_host(prefix: &Prefix) -> bool {
    prefix.bits == if prefix.address.is_ipv4() { 32 } else { 128 }
}

/// The ports that are guarded.
fn ports(policy: &Policy) -> Box<GuardedPorts> {
    let (first, last) = policy.range;
    let mut range = [0u32; PORTS / 32];
    let (first_word, last_word) = (usize::from(first / 32), usize::from(last / 32));
    range[first_word..=last_word].fill(u32::MAX);
    range[first_word] &= u32::MAX << (first % 32);
    range[last_word] &= u32::MAX >> (31 - last % 32);
    let mut ports = Box::new(GuardedPorts {
        tcp: range,
        udp: range,
        unrecorded: [0; PORTS / 32],
        kernel: [0; PORTS / 32],
    });
    for port in &policy.reserved {
        put(&mut ports.tcp, *port, false);
        put(&mut ports.udp, *port, false);
    }
    for port in &policy.exposed_tcp {
        put(&mut ports.tcp, *port, false);
    }
    for port in &policy.exposed_udp {
        put(&mut ports.udp, *port, false);
    }
    for (_, port) in &policy.kernel {
        put(&mut ports.kernel, *port, true);
    }
    for port in &policy.unrecorded {
        put(&mut ports.unrecorded, *port, true);
    }
    ports
}

fn put(ports: &mut [u32; PORTS / 32], port: u16, member: bool) {
    let bit = 1 << (port % 32);
    let word = &mut ports[usize::from(port / 32)];
    *word = if member { *word | bit } else { *word & !bit };
}

/// The interface as the daemon would describe it.
pub fn device(host: &Host) -> Device {
    let mut device = Device {
        name: *b"fuzzed\0\0\0\0\0\0\0\0\0\0",
        forwards: 0,
        reserved: 0,
        routes_by: [0; 2],
        ipv4: [V4(0); MAX_OWN_ADDRESSES],
        ipv6: [V6 { high: 0, low: 0 }; MAX_OWN_ADDRESSES],
        unused: [0; 20],
    };
    for (applies, way) in [
        (host.router, Device::ROUTES),
        (host.carries, Device::BRIDGES),
        (host.shares, Device::SHARES_MAC),
        (!host.diverted.is_empty(), Device::DIVERTS),
    ] {
        device.forwards |= if applies { way } else { 0 };
    }
    let (mut fourth, mut sixth) = (0, 0);
    for prefix in &host.addresses {
        match prefix.address {
            IpAddr::V4(address) => {
                device.ipv4[fourth] = address.octets().into();
                fourth += 1;
            }
            IpAddr::V6(address) => {
                device.ipv6[sixth] = address.octets().into();
                sixth += 1;
            }
        }
    }
    device
}

/// The label of a family of addresses.
pub const fn family(key: &Key) -> Family {
    match key {
        Key::V4(_) => Family::Ipv4,
        Key::V6(_) => Family::Ipv6,
    }
}
