//! The guard that frames are shown to: its ports, addresses and timers.

use std::sync::LazyLock;

use guard_common::{
    abi::{
        config::Config,
        device::{Device, MAX_OWN_ADDRESSES},
        layout::{LAYOUT_VERSION, MAX_DEVICES},
        page::{InForce, Page},
    },
    flow::{key::AddressKey, timer::Timeouts},
    frame::address::{V4, V6},
    ports::{
        bloom::BloomFilter,
        class::{GuardedPorts, PORTS},
        occupancy::Occupancy,
    },
};

use crate::frames::{FAR, G};

/// The first guarded port.
pub const FIRST: u16 = 32_768;
/// The last guarded port.
pub const LAST: u16 = 60_999;
/// A port of the range that is reserved.
pub const RESERVED: u16 = 45_000;
/// A port of the range that is exposed for TCP alone.
pub const EXPOSED_TCP: u16 = 46_000;
/// A port of the range that is exposed for UDP alone.
pub const EXPOSED_UDP: u16 = 46_001;
/// Remote UDP ports that are not recorded: VXLAN by either number, GENEVE.
pub const TUNNELS: [u16; 3] = [4789, 8472, 6081];

/// The slot of the interface under test: the last one.
pub const DEVICE: u32 = MAX_DEVICES - 1;

/// The timers, in ticks.
pub const TIMEOUTS: Timeouts = Timeouts {
    tcp_syn: 940,
    tcp_established: 29_000,
    tcp_transitory: 930,
    udp: 1_170,
    udp_dns: 230,
    multicast: 110,
    fragment: 120,
};

/// A Bloom filter that is not valid: nothing sweeps here.
pub const FILTER: BloomFilter = BloomFilter::new([
    0x9e37_79b9_7f4a_7c15,
    0xd1b5_4a32_d192_ed03,
    0x8cb9_2ba7_2f3d_8dd7,
]);

/// What differs from one case to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setup {
    /// A UDP flow admits every port of the peer's address.
    pub any_remote_port: bool,
    /// Nothing is dropped.
    pub monitor: bool,
    /// The flow maps refuse every insertion.
    pub no_room: bool,
    /// The prefix of a host behind a router is trusted.
    pub trusts: bool,
    /// The second page of guarded ports is in force.
    pub second_page: bool,
    /// No port of the range is exempt, as on a host that has configured nothing.
    pub unbroken: bool,
}

impl Setup {
    /// What the daemon would put into the map `config`.
    pub fn config(self) -> Config {
        let in_force = InForce::new(FIRST, LAST, 0)
            .with(InForce::SECOND_PAGE, self.second_page)
            .with(InForce::MONITOR, self.monitor)
            .with(InForce::ANY_REMOTE_PORT, self.any_remote_port)
            .with(InForce::SOURCES, self.trusts)
            .with(InForce::SPECIAL, !self.unbroken);

        Config {
            layout: LAYOUT_VERSION,
            epoch: u32::from(Occupancy::FIRST_EPOCH),
            in_force,
            recorded: in_force,
            filter: FILTER,
            invalidations: 0,
            reserved: 0,
        }
    }

    /// The page that is in force.
    pub fn page(self) -> Box<Page> {
        let mut page = Box::new(Page::EMPTY);
        page.ports = if self.unbroken { **UNBROKEN } else { **GUARDED };
        page.special = special(&page.ports);
        page.own.salt = SALT;
        // Both addresses of the host, as on an interface that forwards.
        page.own.add_v4(G.ipv4.octets().into());
        page.own.add_v6(G.ipv6.octets().into());
        page.timeouts = TIMEOUTS;
        if self.trusts {
            for (prefix, length) in trusted() {
                hint(&mut page, &prefix, length);
            }
        }
        page
    }

    /// Both pages. By the one that is not in force nothing is guarded.
    pub fn pages(self) -> [Box<Page>; 2] {
        let (page, nothing) = (self.page(), Box::new(Page::EMPTY));
        if self.second_page {
            [nothing, page]
        } else {
            [page, nothing]
        }
    }
}

/// What addresses are hashed by, which is random where it has to be secret.
pub const SALT: u64 = 0x9e37_79b9_7f4a_7c15;

/// Notes in a page that something is said about this prefix.
pub fn hint(page: &mut Page, prefix: &AddressKey, length: u32) {
    if prefix.family == 4 {
        let address = prefix.address;
        page.sources.add_v4(V4(address.high as u32), length);
    } else {
        page.sources.add_v6(prefix.address, length, page.own.salt);
    }
}

/// Ports that are not plainly guarded, in the range or out of it.
pub fn special(ports: &GuardedPorts) -> [u32; PORTS / 32] {
    std::array::from_fn(|index| !(ports.tcp[index] & ports.udp[index]) | ports.kernel[index])
}

/// The interface under test, with both addresses of the guarded host.
pub fn device() -> Device {
    let mut device = Device {
        name: *b"guarded\0\0\0\0\0\0\0\0\0",
        forwards: 0,
        reserved: 0,
        routes_by: [0; 2],
        ipv4: [V4(0); MAX_OWN_ADDRESSES],
        ipv6: [V6 { high: 0, low: 0 }; MAX_OWN_ADDRESSES],
        unused: [0; 20],
    };
    // Not in the first slot, so that every slot is searched.
    device.ipv4[MAX_OWN_ADDRESSES - 1] = G.ipv4.octets().into();
    device.ipv6[MAX_OWN_ADDRESSES - 1] = G.ipv6.octets().into();
    device
}

/// The prefixes of neighbours and their lengths: 10.9.0.0/24 and fd09::/64.
pub fn neighbours() -> [(AddressKey, u32); 2] {
    let ipv4 = V4::from([10, 9, 0, 0]);
    let ipv6 = V6 {
        low: 0,
        ..V6::from(G.ipv6.octets())
    };
    [(AddressKey::new(ipv4), 24), (AddressKey::new(ipv6), 64)]
}

/// The trusted prefixes and their lengths, where any are: 192.0.2.0/24 and 2001:db8::/64.
pub fn trusted() -> [(AddressKey, u32); 2] {
    let ipv4 = V4::from([192, 0, 2, 0]);
    let ipv6 = V6 {
        low: 0,
        ..V6::from(FAR.ipv6.octets())
    };
    [(AddressKey::new(ipv4), 24), (AddressKey::new(ipv6), 64)]
}

/// Whether `address` lies in the prefix, bit by bit.
pub fn covers((prefix, bits): (AddressKey, u32), address: &AddressKey) -> bool {
    let bit = |key: &AddressKey, index: usize| {
        <[u8; 16]>::from(key.address)[index / 8] >> (7 - index % 8) & 1
    };
    prefix.family == address.family
        && (0..bits as usize).all(|index| bit(&prefix, index) == bit(address, index))
}

static GUARDED: LazyLock<Box<GuardedPorts>> = LazyLock::new(|| {
    guarding(|port| {
        [
            port != RESERVED && port != EXPOSED_TCP,
            port != RESERVED && port != EXPOSED_UDP,
        ]
    })
});

static UNBROKEN: LazyLock<Box<GuardedPorts>> = LazyLock::new(|| guarding(|_| [true, true]));

/// The page of the range, of which `guards` says where TCP is guarded, and where UDP.
fn guarding(guards: impl Fn(u16) -> [bool; 2]) -> Box<GuardedPorts> {
    let mut ports = Box::new(GuardedPorts::NONE);
    for port in FIRST..=LAST {
        let [tcp, udp] = guards(port);
        set(&mut ports.tcp, port, tcp);
        set(&mut ports.udp, port, udp);
    }
    for port in TUNNELS {
        set(&mut ports.unrecorded, port, true);
    }
    ports
}

fn set(ports: &mut [u32; PORTS / 32], port: u16, member: bool) {
    ports[usize::from(port / 32)] |= u32::from(member) << (port % 32);
}
