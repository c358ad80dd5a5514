//! The network interfaces of a namespace, and which of them can be guarded.

mod accepted;
mod apart;
mod forwarding;
mod local;
mod lookup;
mod query;
mod readable;
mod routes;

use std::fs;

use guard_common::{frame::ethernet::MacAddress, outcome::Family};
use ipnet::IpNet;

pub use self::{
    accepted::accepted,
    apart::Apart,
    forwarding::{Forwarding, Topology},
    local::{LocalAddresses, local_table},
    lookup::{NextHop, RouteLookup},
    query::{changes, connect, connect_aside, find, list, look, program_name},
    routes::{Routes, Rules},
};
use crate::{base::failure::Failure, host::hooks::XdpHook};

/// Reads a message of rtnetlink as a program that asks for it does.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any(message: &netlink_packet_route::RouteNetlinkMessage) {
    use netlink_packet_route::RouteNetlinkMessage;

    match message {
        RouteNetlinkMessage::NewLink(link) => drop(query::interface(link)),
        RouteNetlinkMessage::NewAddress(address) => drop(query::own_address(address)),
        RouteNetlinkMessage::NewRoute(route) => {
            let _ = (local::read_route(route), routes::concerns_us(route));
        }
        RouteNetlinkMessage::NewRule(rule) => Rules::default().add(rule),
        RouteNetlinkMessage::NewNeighbour(entry) => drop(accepted::read(entry)),
        _ => {}
    }
}

/// `ARPHRD_ETHER`: frames start with an Ethernet header.
const ETHERNET: u16 = 1;

/// `ARPHRD_LOOPBACK`.
const LOOPBACK: u16 = 772;

/// One network interface as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index, unique in its namespace at any one time.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Other names that it goes by, see `ip link property`.
    pub altnames: Vec<String>,
    /// Its hardware address, when that is one of Ethernet's.
    pub mac: Option<MacAddress>,
    /// What its frames start with, as an `ARPHRD_*` number.
    pub link_type: u16,
    /// Its driver's kind, such as `veth` or `bridge`; hardware has none.
    pub kind: Option<String>,
    /// Whether it is set up by the administrator.
    pub up: bool,
    /// Whether it takes frames for every link address.
    pub promiscuous: bool,
    /// Largest packet without the Ethernet header, in bytes.
    pub mtu: u32,
    /// The largest MTU that its driver takes, where it is limited.
    pub max_mtu: Option<u32>,
    /// Its own addresses with the length of their prefixes.
    pub addresses: Vec<IpNet>,
    /// The bridge, bond or the like that it is a port of.
    pub controller: Option<u32>,
    /// The interface of the same namespace that it sits on, such as a VLAN on its hardware.
    pub lower: Option<u32>,
    /// The XDP programs on it, one at most for each mode.
    pub xdp: Vec<XdpProgram>,
}

/// Packets that an interface has counted since it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Received packets.
    pub received: u64,
    /// Sent packets.
    pub sent: u64,
}

/// An interface and what it has counted. Nothing where it is gone.
pub type Counted = anyhow::Result<Option<(Interface, Statistics)>>;

/// An XDP program that is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// How it sits there; `None` where it runs in the network card.
    pub hook: Option<XdpHook>,
    /// Its id.
    pub id: u32,
}

impl XdpProgram {
    /// The word for where it runs.
    fn mode(self) -> &'static str {
        self.hook.map_or("offload", XdpHook::label)
    }
}

impl Interface {
    /// Whether it goes by this name.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|altname| altname == name)
    }

    /// Whether it is a loopback interface.
    pub fn is_loopback(&self) -> bool {
        self.link_type == LOOPBACK
    }

    /// Refuses an interface that no guard makes sense on.
    ///
    /// # Errors
    /// For a loopback interface, and for one whose frames have no Ethernet header: exit code 69.
    pub fn require_guardable(&self) -> Result<(), Failure> {
        let name = &self.name;
        if self.kind.as_deref() == Some("ifb") {
            return Err(Failure::unavailable(format!(
                "{name}: takes frames of other interfaces, on which XDP has run already (ifb)"
            ))
            .remedy("guard the interface that its frames come in by"));
        }
        match self.link_type {
            ETHERNET => Ok(()),
            LOOPBACK => Err(Failure::unavailable(format!(
                "{name}: loopback interface, and packets to this host's own addresses never meet \
                 a network card"
            ))
            .remedy("guard the interface that packets from outside come in by")),
            other => Err(Failure::unavailable(format!(
                "{name}: not an Ethernet interface (link type {other}), its packets have no \
                 Ethernet header"
            ))
            .remedy("guard the Ethernet interface that carries its packets")),
        }
    }

    /// Refuses an interface that holds an XDP program which is not `ours`, by program id.
    ///
    /// # Errors
    /// Names the program, its id and its mode: exit code 69.
    pub fn require_free(&self, ours: impl Fn(u32) -> bool) -> Result<(), Failure> {
        let Some(foreign) = self.xdp.iter().find(|program| !ours(program.id)) else {
            return Ok(());
        };
        let name = program_name(foreign.id).unwrap_or_else(|| "without a name".to_owned());

        Err(Failure::unavailable(format!(
            "{}: taken by the XDP program {name} (id {}, {} mode)",
            self.name,
            foreign.id,
            foreign.mode()
        ))
        .remedy("stop whatever attached it, it is left untouched"))
    }

    fn is_vrf(&self) -> bool {
        self.kind.as_deref() == Some("vrf")
    }

    /// Whether it controls others without sending anything on from one to another.
    fn is_transparent(&self) -> bool {
        self.is_vrf() || matches!(self.kind.as_deref(), Some("bond" | "team"))
    }

    /// Whether the kernel routes what it gets by this interface.
    fn routes(&self, family: Family) -> bool {
        let family = match family {
            Family::Ipv6 => "ipv6",
            Family::Ipv4 | Family::Other => "ipv4",
        };
        let name = &self.name;

        fs::read_to_string(format!("/proc/sys/net/{family}/conf/{name}/forwarding"))
            .is_ok_and(|text| text.trim() != "0")
    }

    /// Whether the kernel sends on what of IPv6 it gets by this interface, although `forwarding` is
    /// off: since Linux 6.17 that may be asked of single interfaces.
    fn forces_forwarding(&self) -> bool {
        let name = &self.name;

        fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/force_forwarding"))
            .is_ok_and(|text| text.trim() != "0")
    }
}

/// The interface that goes by `name` among `interfaces`, if one does.
pub fn named<'a>(interfaces: &'a [Interface], name: &str) -> Option<&'a Interface> {
    interfaces
        .iter()
        .find(|interface| interface.is_called(name))
}

/// As [`named`], for what cannot do without it.
///
/// # Errors
/// When there is none; names those there are: exit code 69.
pub fn pick(interfaces: &[Interface], name: &str) -> Result<Interface, Failure> {
    named(interfaces, name).cloned().ok_or_else(|| {
        Failure::unavailable(format!("{name}: no such interface")).remedy(names(interfaces))
    })
}

/// Such as `interfaces here: lo, eth0`.
pub fn names(interfaces: &[Interface]) -> String {
    let names: Vec<_> = interfaces
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    let here = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    };

    format!("interfaces here: {here}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, link_type: u16, xdp: &[u32]) -> Interface {
        let xdp = xdp
            .iter()
            .map(|&id| XdpProgram {
                hook: Some(XdpHook::Native),
                id,
            })
            .collect();

        Interface {
            index: 1,
            name: name.to_owned(),
            altnames: vec![format!("{name}-altname-of-more-than-15-bytes")],
            mac: None,
            link_type,
            kind: None,
            up: true,
            promiscuous: false,
            mtu: 1500,
            max_mtu: None,
            addresses: Vec::new(),
            controller: None,
            lower: None,
            xdp,
        }
    }

    #[test]
    fn guardable_interfaces() {
        let table = [
            ("Ethernet", interface("eth0", ETHERNET, &[]), None),
            (
                "loopback",
                interface("lo", LOOPBACK, &[]),
                Some("lo: loopback interface"),
            ),
            (
                "tun",
                interface("tun0", 65534, &[]),
                Some("tun0: not an Ethernet interface (link type 65534)"),
            ),
        ];
        for (name, interface, expected) in table {
            let line = interface
                .require_guardable()
                .err()
                .map(|failure| failure.to_string());
            assert_eq!(line.is_some(), expected.is_some(), "{name}");
            assert!(
                line.unwrap_or_default()
                    .starts_with(expected.unwrap_or_default()),
                "{name}"
            );
        }
    }

    #[test]
    fn a_foreign_program_is_refused() {
        let taken = interface("eth0", ETHERNET, &[7, u32::MAX]);
        assert!(taken.require_free(|_| true).is_ok());
        let failure = taken
            .require_free(|id| id == 7)
            .expect_err("the second is foreign");
        assert!(
            failure
                .to_string()
                .contains("(id 4294967295, native mode); stop"),
            "{failure}"
        );
    }

    #[test]
    fn a_missing_interface_names_those_there_are() {
        let here = [
            interface("lo", LOOPBACK, &[]),
            interface("eth0", ETHERNET, &[]),
        ];
        for name in ["eth0", "eth0-altname-of-more-than-15-bytes"] {
            assert_eq!(pick(&here, name).expect("is there").name, "eth0");
        }
        assert_eq!(
            pick(&here, "eth7").expect_err("is not there").to_string(),
            "eth7: no such interface; interfaces here: lo, eth0"
        );
    }
}
