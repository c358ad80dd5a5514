//! Broadcast and multicast: a wildcard socket hears them, so they are as local as any packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use guard_common::outcome::{Family, Outcome::DropNoFlow};
use guard_tests::frames::{EVERYBODY, End, SUBNET};

use super::case::{Case, case};

/// Every host on the link, by the Ethernet addresses of the two groups.
const ALL_HOSTS_IPV4: End = End {
    mac: [0x01, 0x00, 0x5e, 0x00, 0x00, 0x01],
    ipv4: Ipv4Addr::new(224, 0, 0, 1),
    ipv6: EVERYBODY.ipv6,
};
const ALL_HOSTS_IPV6: End = End {
    mac: [0x33, 0x33, 0x00, 0x00, 0x00, 0x01],
    ipv4: Ipv4Addr::new(224, 0, 0, 1),
    ipv6: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
};

pub fn cases() -> Vec<Case> {
    [
        ("A9, U10 to 255.255.255.255", EVERYBODY, Family::Ipv4),
        ("A9, U10 to 10.9.0.255", SUBNET, Family::Ipv4),
        ("A9, U10 to 224.0.0.1", ALL_HOSTS_IPV4, Family::Ipv4),
        ("A9, U10 to ff02::1", ALL_HOSTS_IPV6, Family::Ipv6),
        ("A9, U10 to ff02::1, by broadcast", EVERYBODY, Family::Ipv6),
    ]
    .into_iter()
    .map(|(name, end, family)| {
        case(
            name,
            move |plain| {
                vec![match family {
                    Family::Ipv6 => plain.to(end).v6(),
                    Family::Ipv4 | Family::Other => plain.to(end).v4(),
                }]
            },
            [(DropNoFlow, 1)],
        )
    })
    .collect()
}
