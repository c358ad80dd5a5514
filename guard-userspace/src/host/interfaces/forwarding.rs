//! How what comes in by an interface goes on to other hosts.

use std::collections::{BTreeSet, HashMap, HashSet};

use guard_common::{abi::device::Device, frame::ethernet::MacAddress, outcome::Family};

use super::{Interface, accepted};

/// Interfaces on top of one that are asked whether they route. A host has thousands of them where
/// they are of containers, and hardly any that routes.
const ASKED: usize = 64;

/// How what comes in by an interface goes on to other hosts, and by which interface the kernel
/// takes it to have come in then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forwarding {
    /// As [`Device::forwards`].
    pub forwards: u32,
    /// As [`Device::routes_by`].
    pub routes_by: [u32; 2],
}

/// The interfaces of a namespace, and which of them sit on which.
pub struct Topology<'a> {
    by_index: HashMap<u32, &'a Interface>,
    upon: HashMap<u32, Vec<&'a Interface>>,
    own: BTreeSet<MacAddress>,
}

impl<'a> Topology<'a> {
    /// Those of these interfaces.
    pub fn new(interfaces: &'a [Interface]) -> Self {
        let mut upon: HashMap<_, Vec<_>> = HashMap::new();
        for interface in interfaces {
            if let Some(lower) = interface.lower {
                upon.entry(lower).or_default().push(interface);
            }
        }
        // What comes to a macvtap goes to the process that has it open: a guest.
        let own = interfaces
            .iter()
            .filter(|interface| interface.kind.as_deref() != Some("macvtap"))
            .filter_map(|interface| interface.mac)
            .collect();

        Self {
            by_index: interfaces.iter().map(|one| (one.index, one)).collect(),
            upon,
            own,
        }
    }

    /// Link addresses by which frames come to this host itself.
    pub const fn own_links(&self) -> &BTreeSet<MacAddress> {
        &self.own
    }

    /// This interface and all that get frames from it, nearest first.
    pub fn above(&self, interface: &'a Interface) -> Vec<&'a Interface> {
        let mut above = vec![interface];
        let mut known = HashSet::from([interface.index]);
        let mut next = 0;
        while let Some(&one) = above.get(next) {
            let upon = self.upon.get(&one.index).into_iter().flatten().copied();
            for other in self.controller(one).into_iter().chain(upon) {
                if known.insert(other.index) {
                    above.push(other);
                }
            }
            next += 1;
        }

        above
    }

    /// How this host sends on what comes in by an interface.
    ///
    /// # Errors
    /// When the kernel does not tell which link addresses the interface accepts.
    pub fn forwarding(&self, interface: &'a Interface) -> anyhow::Result<Forwarding> {
        let above = self.above(interface);
        let mut forwards = above
            .iter()
            .map(|one| self.passes_on(one))
            .fold(0, |ways, way| ways | way);
        // The kernel takes no frame for another link address, but a guest with a packet socket does.
        if interface.promiscuous {
            forwards |= Device::BRIDGES;
        }
        if forwards & Device::BRIDGES == 0 {
            let carried = |link| !self.own.contains(link);
            if accepted(interface.index)?.iter().any(carried) {
                forwards |= Device::BRIDGES;
            }
        }

        let routes_by =
            [Family::Ipv4, Family::Ipv6].map(|family| match self.router(interface, family) {
                Some(router) => {
                    forwards |= Device::ROUTES;
                    router.index
                }
                None => self.receiver(interface).index,
            });

        Ok(Forwarding {
            forwards,
            routes_by,
        })
    }

    /// Whether this host routes what comes in by an interface.
    pub fn routes(&self, interface: &'a Interface, family: Family) -> bool {
        self.router(interface, family).is_some()
    }

    /// Whether the kernel sends on what of IPv6 comes in by an interface, by a setting that
    /// `bpf_fib_lookup` does not know: that answers as if nothing were sent on.
    pub fn forces_forwarding(&self, interface: &'a Interface) -> bool {
        let above = self.above(self.receiver(interface));

        above
            .into_iter()
            .take(ASKED)
            .any(Interface::forces_forwarding)
    }

    /// The interface, of all that get frames from this one, that the kernel routes by.
    fn router(&self, interface: &'a Interface, family: Family) -> Option<&'a Interface> {
        let above = self.above(self.receiver(interface));

        above.into_iter().take(ASKED).find(|one| one.routes(family))
    }

    /// How an interface passes on what it gets.
    fn passes_on(&self, interface: &Interface) -> u32 {
        let controller = self.controller(interface);
        let bridged = controller.is_some_and(|controller| !controller.is_transparent());
        let carries = if bridged { Device::BRIDGES } else { 0 };
        let shared = interface.mac.is_none_or(|mac| self.own.contains(&mac));

        carries
            | match interface.kind.as_deref() {
                Some("macvtap") if !shared => Device::BRIDGES,
                // What is above in other namespaces, or in guests, has the same link address.
                Some("macvtap" | "ipvlan" | "ipvtap") => Device::SHARES_MAC,
                _ => 0,
            }
    }

    /// The interface by which the kernel's stack gets what comes in by another.
    fn receiver(&self, interface: &'a Interface) -> &'a Interface {
        let mut receiver = interface;
        // A bridge of a bond, and nothing deeper: interfaces change while they are listed, and may
        // seem to control each other.
        for _ in 0..2 {
            match self.controller(receiver) {
                Some(controller) if !controller.is_vrf() => receiver = controller,
                _ => break,
            }
        }

        receiver
    }

    /// The bridge, bond or the like that an interface is a port of.
    fn controller(&self, interface: &Interface) -> Option<&'a Interface> {
        let index = interface.controller?;

        self.by_index.get(&index).copied()
    }

    /// Whether an interface has routes of its own, in which its addresses are.
    pub fn is_in_vrf(&self, interface: &Interface) -> bool {
        self.controller(interface).is_some_and(Interface::is_vrf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing has this index but what is made up here.
    const FIRST: u32 = 1 << 30;

    fn interface(
        number: u32,
        kind: &str,
        controller: Option<u32>,
        lower: Option<u32>,
    ) -> Interface {
        Interface {
            index: FIRST + number,
            name: format!("made up {number}"),
            altnames: Vec::new(),
            mac: Some(MacAddress::new([2, 0, 0, 0, 0, number as u8])),
            link_type: 1,
            kind: Some(kind.to_owned()),
            up: true,
            promiscuous: false,
            mtu: 1500,
            max_mtu: None,
            addresses: Vec::new(),
            controller: controller.map(|number| FIRST + number),
            lower: lower.map(|number| FIRST + number),
            xdp: Vec::new(),
        }
    }

    #[test]
    fn what_sits_on_an_interface_says_how_frames_go_on() {
        let (carries, shares) = (Device::BRIDGES, Device::SHARES_MAC);
        // what there is beside the first                        ways     by   above
        let table = [
            (vec![], 0, 0, 1),
            (vec![interface(1, "vlan", None, Some(0))], 0, 0, 2),
            (vec![interface(1, "macvlan", None, Some(0))], 0, 0, 2),
            (vec![interface(1, "macvtap", None, Some(0))], carries, 0, 2),
            (vec![interface(1, "ipvlan", None, Some(0))], shares, 0, 2),
            (vec![interface(1, "bridge", None, None)], carries, 1, 2),
            (vec![interface(1, "bond", None, None)], 0, 1, 2),
            (vec![interface(1, "vrf", None, None)], 0, 0, 2),
            (
                vec![
                    interface(1, "bond", Some(2), None),
                    interface(2, "bridge", None, None),
                    interface(3, "vlan", None, Some(2)),
                ],
                carries,
                2,
                4,
            ),
            (
                vec![
                    interface(1, "bridge", None, None),
                    interface(2, "ipvlan", None, Some(1)),
                ],
                carries | shares,
                1,
                3,
            ),
        ];
        for (others, forwards, receiver, above) in table {
            let controlled = others.first().is_some_and(|other| other.lower.is_none());
            let first = interface(0, "veth", controlled.then_some(1), None);
            let all: Vec<_> = [first].into_iter().chain(others).collect();
            let layers = Topology::new(&all);
            let routes_by = [FIRST + receiver; 2];
            let expected = Forwarding {
                forwards,
                routes_by,
            };
            let found = layers
                .forwarding(&all[0])
                .expect("is for everybody to list");
            assert_eq!(found, expected, "{all:?}");
            assert_eq!(layers.above(&all[0]).len(), above, "{all:?}");
        }
    }

    /// Interfaces change while they are listed.
    #[test]
    fn interfaces_that_sit_on_each_other_end() {
        let all = [
            interface(0, "bond", Some(1), Some(1)),
            interface(1, "bridge", Some(0), Some(0)),
        ];
        let layers = Topology::new(&all);
        assert_eq!(layers.above(&all[0]).len(), 2);
        layers
            .forwarding(&all[0])
            .expect("is for everybody to list");
    }

    #[test]
    fn guests_of_a_promiscuous_interface_have_link_addresses_of_their_own() {
        let own = Interface {
            promiscuous: true,
            ..interface(0, "veth", None, None)
        };
        let all = [own];
        let found = Topology::new(&all).forwarding(&all[0]);
        let found = found.expect("is for everybody to list");
        assert_eq!(found.forwards, Device::BRIDGES);
    }

    #[test]
    fn a_guest_has_the_link_address_of_its_macvtap_alone() {
        let own = interface(0, "veth", None, None);
        let guest = interface(1, "macvtap", None, Some(0));
        let passthru = Interface {
            mac: own.mac,
            ..guest.clone()
        };
        let all = [own.clone(), guest.clone()];
        let layers = Topology::new(&all);
        assert!(!layers.own_links().contains(&guest.mac.expect("has one")));
        let all = [own, passthru];
        let found = Topology::new(&all).forwarding(&all[0]);
        let found = found.expect("is for everybody to list");
        assert_eq!(found.forwards, Device::SHARES_MAC);
    }
}
