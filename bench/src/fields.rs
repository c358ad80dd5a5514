//! Where in a frame the fields are that differ from one to the next.

use std::{array, net::IpAddr};

use guard_common::outcome::Direction;
use guard_tests::frames::{SERVICE_VLAN, VLAN};

use crate::recipe::Recipe;

const ETHERNET: usize = 14;
const TAG: usize = 4;

const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// The extension header of a piece of a datagram.
const FRAGMENT: u8 = 44;

/// A recipe that leaves nothing out: both ports, and the remote address. `frame` must have no
/// headers but these: tags, IPv4 without options or IPv6, a fragment header, TCP or UDP.
///
/// # Panics
/// When the frame ends within them.
pub fn of(frame: &[u8], direction: Direction) -> Recipe {
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let mut network = ETHERNET;
    while [VLAN, SERVICE_VLAN].contains(&word(network - 2)) {
        network += TAG;
    }
    let mut recipe = Recipe {
        flows: 1,
        flow_ports: 1,
        unsolicited_ports: 1,
        ..Recipe::default()
    };
    if network > ETHERNET {
        recipe.link = array::from_fn(|word| {
            let bytes = array::from_fn(|byte| frame[4 * word + byte]);
            u32::from_ne_bytes(bytes)
        });
    }
    // Of source and destination, which is the remote one's.
    let side = match direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    };
    let (protocol, transport) = if word(network - 2) == IPV6 {
        recipe.address_at = (network + 8 + 16 * side + 12) as u32;
        let next = frame[network + 6];
        if next == FRAGMENT {
            recipe.id_at = (network + 46) as u32;
            (0, network + 48)
        } else {
            (next, network + 40)
        }
    } else {
        recipe.address_at = (network + 12 + 4 * side) as u32;
        recipe.ip_checksum_at = (network + 10) as u32;
        let is_piece = word(network + 6) & 0x3fff != 0;
        if is_piece {
            recipe.id_at = (network + 4) as u32;
        }
        let protocol = if is_piece { 0 } else { frame[network + 9] };
        (protocol, network + 20)
    };
    let checksum = match protocol {
        TCP => 16,
        UDP => 6,
        // A piece, whose bytes are payload.
        _ => return recipe,
    };

    recipe.remote_port_at = (transport + 2 * side) as u32;
    recipe.local_port_at = (transport + 2 * (1 - side)) as u32;
    recipe.transport_checksum_at = (transport + checksum) as u32;
    recipe
}

/// The last four bytes of an address, as a recipe has them.
pub fn last_word(address: IpAddr) -> u32 {
    let last = match address {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            [a, b, c, d]
        }
    };
    u32::from_ne_bytes(last)
}

#[cfg(test)]
mod tests {
    use guard_common::outcome::Family;
    use guard_tests::frames::{tcp, udp};

    use super::*;

    #[test]
    fn ports_and_addresses_are_found_in_either_direction() {
        let received = of(&udp(53, 40_000).received(Family::Ipv4), Direction::Ingress);
        assert_eq!((received.address_at, received.ip_checksum_at), (26, 24));
        assert_eq!((received.remote_port_at, received.local_port_at), (34, 36));
        assert_eq!(received.transport_checksum_at, 40);

        let sent = of(
            &tcp(40_000, 443).tags(1).sent(Family::Ipv6),
            Direction::Egress,
        );
        assert_eq!((sent.address_at, sent.ip_checksum_at), (54, 0));
        assert_eq!((sent.remote_port_at, sent.local_port_at), (60, 58));
        assert_eq!(sent.transport_checksum_at, 74);
    }

    #[test]
    fn a_piece_has_an_identification_and_no_ports() {
        for (family, at) in [(Family::Ipv4, 18), (Family::Ipv6, 60)] {
            let frame = udp(53, 40_000).piece(7, 8..).received(family);
            let recipe = of(&frame, Direction::Ingress);
            assert_eq!((recipe.id_at, recipe.local_port_at), (at, 0));
            assert_eq!(&frame[at as usize..at as usize + 2], &[0, 7]);
        }
    }
}
