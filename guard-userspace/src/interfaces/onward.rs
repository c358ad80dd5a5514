//! How what comes in by an interface goes on to other hosts.

use std::{collections::BTreeSet, fs};

use guard_common::{config::Device, link::LinkAddress};

use super::{Interface, accepted};

/// How what comes in by an interface goes on to other hosts, and by which interface the kernel
/// takes it to have come in then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Onward {
    /// As [`Device::forwards`].
    pub forwards: u32,
    /// As [`Device::routes_by`].
    pub routes_by: u32,
}

/// Link addresses by which frames come to this host itself. Those of a macvtap come to whoever has
/// it open: a guest.
pub fn own_links(interfaces: &[Interface]) -> BTreeSet<LinkAddress> {
    interfaces
        .iter()
        .filter(|interface| interface.kind.as_deref() != Some("macvtap"))
        .filter_map(|interface| interface.mac)
        .collect()
}

impl Interface {
    /// How this host sends on what comes in here, given all its interfaces.
    ///
    /// # Errors
    /// When the kernel does not tell which link addresses the interface accepts.
    pub fn onward(&self, interfaces: &[Self]) -> anyhow::Result<Onward> {
        let own = own_links(interfaces);
        let above = self.above(interfaces);
        let mut forwards = above
            .iter()
            .map(|interface| interface.passes_on(&own, interfaces))
            .fold(0, |ways, way| ways | way);
        if forwards & Device::CARRIES == 0
            && accepted(self.index)?.iter().any(|link| !own.contains(link))
        {
            forwards |= Device::CARRIES;
        }

        let receiver = self.receiver(interfaces);
        let router = receiver
            .above(interfaces)
            .into_iter()
            .find(|interface| interface.routes());
        if router.is_some() {
            forwards |= Device::ROUTES;
        }

        Ok(Onward {
            forwards,
            routes_by: router.unwrap_or(receiver).index,
        })
    }

    /// This interface and all that get frames from it, nearest first.
    pub fn above<'a>(&'a self, interfaces: &'a [Self]) -> Vec<&'a Self> {
        let mut above = vec![self];
        let mut next = 0;
        while let Some(&one) = above.get(next) {
            for other in interfaces {
                let gets = one.controller == Some(other.index) || other.lower == Some(one.index);
                if gets && above.iter().all(|known| known.index != other.index) {
                    above.push(other);
                }
            }
            next += 1;
        }

        above
    }

    /// How this interface passes on what it gets, on a host with these link addresses.
    fn passes_on(&self, own: &BTreeSet<LinkAddress>, interfaces: &[Self]) -> u32 {
        let controller = self.controlled_by(interfaces);
        let bridged = controller.is_some_and(|controller| !controller.is_transparent());
        let carries = if bridged { Device::CARRIES } else { 0 };
        let shared = self.mac.is_none_or(|mac| own.contains(&mac));

        carries
            | match self.kind.as_deref() {
                Some("macvtap") if !shared => Device::CARRIES,
                // What is above in other namespaces, or in guests, has the same link address.
                Some("macvtap" | "ipvlan" | "ipvtap") => Device::SHARES,
                _ => 0,
            }
    }

    /// The interface by which the kernel's stack gets what comes in here.
    fn receiver<'a>(&'a self, interfaces: &'a [Self]) -> &'a Self {
        let mut receiver = self;
        // A bridge of a bond, and nothing deeper: interfaces change while they are listed, and may
        // seem to control each other.
        for _ in 0..2 {
            match receiver.controlled_by(interfaces) {
                Some(controller) if controller.kind.as_deref() != Some("vrf") => {
                    receiver = controller;
                }
                _ => break,
            }
        }

        receiver
    }

    fn controlled_by<'a>(&self, interfaces: &'a [Self]) -> Option<&'a Self> {
        interfaces
            .iter()
            .find(|interface| Some(interface.index) == self.controller)
    }

    /// Whether it controls others without sending anything on from one to another.
    fn is_transparent(&self) -> bool {
        matches!(self.kind.as_deref(), Some("bond" | "team" | "vrf"))
    }

    /// Whether the kernel routes what it gets by this interface.
    fn routes(&self) -> bool {
        ["ipv4", "ipv6"].into_iter().any(|family| {
            let name = &self.name;
            fs::read_to_string(format!("/proc/sys/net/{family}/conf/{name}/forwarding"))
                .is_ok_and(|text| text.trim() != "0")
        })
    }
}
