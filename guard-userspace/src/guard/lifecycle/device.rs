//! One interface with its copy of the programs.

use std::{collections::BTreeSet, io, net::IpAddr, path::PathBuf, time::Instant};

use guard_common::{
    abi::device::{Device, MAX_OWN_ADDRESSES},
    frame::address::{V4, V6},
    outcome::Family,
};
use ipnet::IpNet;
use rtnetlink::Handle;

use super::{
    egress_order::{Look, Neighbours},
    wanted::Wanted,
};
use crate::{
    base::failure::Failure,
    bpf::{
        attach::{self, AttachPoint, Attached, EgressHook, EgressRequest, Link, Plan, XdpHook},
        pins::{Hook, Pins},
        programs::Programs,
        syscalls::LinkTarget,
    },
    config::{self, Settings},
    guard::{
        alarms::Alarms,
        attachment::{Attachment, Proof},
        evidence::Comparison,
    },
    host::{
        driver::DriverFacts,
        interfaces::{self, Interface, Routes, Topology},
    },
};

/// One interface with its copy of the programs.
#[derive(Debug)]
pub(super) struct GuardedDevice {
    /// What the settings call it, which may be another of its names.
    pub(super) asked: String,
    /// What it is called, or was when it was last there.
    pub(super) name: String,
    /// 0 while there is no such interface.
    pub(super) index: u32,
    pub(super) slot: u32,
    /// Whether unsolicited packets are dropped here, or what is sent is only recorded.
    pub(super) guarded: bool,
    pub(super) xdp: Option<Attached>,
    pub(super) xdp_hook: Option<XdpHook>,
    pub(super) egress: Option<Attached>,
    egress_hook: Option<EgressHook>,
    /// Who else sees what is sent here.
    pub(super) neighbours: Neighbours,
    /// Whether it has had all its programs at some time.
    pub(super) seen: bool,
    /// Whether the maps have not been told of flows that began while nothing was recorded here.
    pub(super) unseeded: bool,
    xdp_link: Option<Link>,
    egress_link: Option<Link>,
    /// When a program was last found to have been taken off by somebody else.
    pub(super) robbed: Option<Instant>,
    pub(super) received: Comparison,
    pub(super) sent: Comparison,
    /// Whether it was said that it sends packets that do not pass the egress program.
    pub(super) told_elsewhere: bool,
    /// The XDP mode that was chosen because the program saw nothing in another one.
    pub(super) cure: Option<config::XdpMode>,
    /// The MTU that the mode of XDP was chosen at.
    mtu: u32,
    /// Whether its XDP program reads frames in several pieces.
    frags: bool,
    /// Nothing until they are loaded, which is done last for interfaces that are missing.
    programs: Option<Programs>,
}

impl GuardedDevice {
    pub(super) fn new(wanted: &Wanted, slot: u32, programs: Option<Programs>) -> Self {
        Self {
            asked: wanted.asked.clone(),
            name: wanted.name().to_owned(),
            index: wanted
                .interface
                .as_ref()
                .map_or(0, |interface| interface.index),
            slot,
            guarded: wanted.guarded,
            seen: false,
            xdp: None,
            xdp_hook: None,
            egress: None,
            egress_hook: None,
            unseeded: false,
            xdp_link: None,
            egress_link: None,
            robbed: None,
            received: Comparison::default(),
            sent: Comparison::default(),
            told_elsewhere: false,
            cure: None,
            mtu: 0,
            neighbours: Neighbours::default(),
            frags: wanted.frags,
            programs,
        }
    }

    /// Its copy of the programs.
    ///
    /// # Errors
    /// When they are not loaded yet.
    fn programs(&mut self) -> Result<&mut Programs, Failure> {
        loaded(&mut self.programs)
    }

    /// Whether it has its copy of the programs.
    pub(super) const fn is_loaded(&self) -> bool {
        self.programs.is_some()
    }

    /// The slot of its programs, and whether XDP reads frames in several pieces.
    pub(super) const fn copy(&self) -> (u32, bool) {
        (self.slot, self.frags)
    }

    /// Takes its copy of the programs.
    pub(super) fn equip(&mut self, programs: Programs) {
        self.programs = Some(programs);
    }

    /// Has a thread load its XDP program, unless one does or has.
    pub(super) fn begin_ingress(
        &mut self,
        pins: &Pins,
        settings: &Settings,
    ) -> Result<(), Failure> {
        let most = settings.max_flows.get();

        self.programs()?.begin_ingress(pins, most)
    }

    /// Waits until the kernel has taken every program, and leaves the thread to others meanwhile.
    pub(super) async fn loaded(&mut self) -> Result<(), Failure> {
        self.programs()?.loaded().await
    }

    /// Returns a line for the administrator where the hook is not the one that was preferred.
    /// `beside` leaves an earlier run's program in force, until [`settle`](Self::settle).
    pub(super) fn attach_egress(
        &mut self,
        settings: &Settings,
        pins: &Pins,
        beside: bool,
    ) -> Result<Option<String>, Failure> {
        self.neighbours.own = self.programs()?.egress_ids()?;
        self.neighbours.own.earlier = attach::pinned_egress(pins, self.index);
        let wish = EgressRequest {
            hook: settings.egress_hook,
            behind_others: settings.allow_filter_in_front,
            beside,
        };
        let spot = AttachPoint {
            name: &self.name,
            index: self.index,
            pins,
        };
        let program = loaded(&mut self.programs)?.egress()?;
        let (hold, hook, note) = attach::egress(program, spot, wish, &self.neighbours.own)?;
        self.egress_link = self.link(&hold, self.neighbours.own.egress);
        self.sent.restart();
        self.egress = Some(hold);
        self.egress_hook = Some(hook);

        Ok(note.map(|reason| format!("{reason}; recording by clsact")))
    }

    /// Ends what an earlier run records beside this one.
    pub(super) fn settle(&mut self, pins: &Pins) -> Result<(), Failure> {
        let spot = AttachPoint {
            name: &self.name,
            index: self.index,
            pins,
        };
        attach::settle_egress(spot, &self.neighbours.own)?;
        self.neighbours.own.earlier.clear();

        Ok(())
    }

    /// Keeps the egress programs in their places beside those of others, as
    /// [`arrange`](Neighbours::arrange) does. Forgets the one that records and counts where it is
    /// missing.
    pub(super) fn arrange_egress(
        &mut self,
        settings: &Settings,
        pins: &Pins,
        urgent: bool,
        (alarms, notes): (&Alarms, &mut Vec<String>),
    ) -> bool {
        let (Some(_), Some(hook)) = (&self.egress, self.egress_hook) else {
            return false;
        };
        let mut look = Look {
            spot: AttachPoint {
                name: &self.name,
                index: self.index,
                pins,
            },
            hook,
            behind_others: settings.allow_filter_in_front,
            urgent,
            alarms,
            notes,
        };
        let Some(programs) = &mut self.programs else {
            return false;
        };
        let moved = self.neighbours.arrange(programs, &mut look);
        if moved.is_none() {
            self.egress = None;
        }

        moved.unwrap_or_default()
    }

    /// Who stands before the egress program, asked anew.
    pub(super) fn in_front(&self) -> io::Result<Vec<String>> {
        let hook = self.egress_hook.ok_or(io::ErrorKind::NotFound)?;
        attach::look(self.index, hook, &self.neighbours.own)?;

        Ok(self.neighbours.chain.in_front.clone())
    }

    /// Lets go of an interface that may be elsewhere, where its filters have gone with it: takes off
    /// the links.
    pub(super) fn release_egress_links(&mut self, pins: &Pins) -> anyhow::Result<()> {
        let spot = AttachPoint {
            name: &self.name,
            index: self.index,
            pins,
        };
        self.neighbours = Neighbours::default();
        self.egress = None;
        if self.index == 0 {
            return Ok(());
        }

        // Also where it was taken for gone: a look that meets a move finds no chain, and the link is
        // in force elsewhere.
        attach::release_links(spot)
    }

    /// Takes off everything that sees what is sent here.
    pub(super) fn release_egress(&mut self, pins: &Pins) -> anyhow::Result<()> {
        let spot = AttachPoint {
            name: &self.name,
            index: self.index,
            pins,
        };
        self.egress = None;

        attach::release_egress(spot)
    }

    /// Takes over from a link that is pinned at one of `left`, or attaches anew, in the mode that
    /// suits the interface, which is one of `all`. Returns a line for the administrator where the
    /// mode is not the one that was preferred.
    pub(super) fn attach_xdp(
        &mut self,
        mode: config::XdpMode,
        pins: &Pins,
        left: &[PathBuf],
        (interface, all): (&Interface, &[Interface]),
    ) -> Result<Option<String>, Failure> {
        self.mtu = interface.mtu;
        let mode = self.cure.unwrap_or(mode);
        let plan = self.plan(mode, (interface, all));
        let pin = pins.link(self.index, Hook::Xdp);
        let program = self.programs()?.ingress()?;
        let (hold, fallback) = attach::xdp(program, interface, &plan, (&pin, left))?;
        let program = program.info().map_err(anyhow::Error::from)?.id();
        self.xdp_link = self.link(&hold, program);
        self.received.restart();
        self.xdp = Some(hold);

        Ok(fallback.or_else(|| plan.note(&interface.name, mode)))
    }

    /// Where the program that is loaded is to run.
    fn plan(&self, mode: config::XdpMode, (interface, all): (&Interface, &[Interface])) -> Plan {
        let mut facts = DriverFacts::observe(interface, all);
        facts.host.frags = self.frags;

        Plan::new(mode, &interface.name, &facts)
    }

    /// Goes to the mode that suits another MTU than the one it was chosen at: before a driver loses
    /// frames or does not let go of the program any more, and back. Returns a line for the
    /// administrator where something has changed.
    ///
    /// # Errors
    /// When the driver does not let go, or the program cannot be attached anew.
    pub(super) fn follow_mtu(
        &mut self,
        mode: config::XdpMode,
        pins: &Pins,
        (interface, all): (&Interface, &[Interface]),
    ) -> Result<Option<String>, Failure> {
        if self.mtu == interface.mtu {
            return Ok(None);
        }
        let (Some(hook), true) = (self.xdp_hook, self.xdp.is_some()) else {
            return Ok(None);
        };
        self.mtu = interface.mtu;
        let name = &interface.name;
        let mode = self.cure.unwrap_or(mode);
        let plan = self.plan(mode, (interface, all));
        let why = plan.note(name, mode);
        if plan.hook == hook {
            // What is worth knowing of native mode although it stays.
            return Ok(why.filter(|_| mode == config::XdpMode::Native));
        }
        // The kernel has one program on an interface at a time: for a moment there is none.
        if let Some(hold) = &self.xdp {
            hold.release()?;
        }
        self.xdp = None;
        let note = self.attach_xdp(mode, pins, &[], (interface, all))?;
        let note = note.unwrap_or_else(|| format!("{name}: guarding in native mode again"));

        Ok(Some(format!("{note} (its MTU is {} now)", interface.mtu)))
    }

    /// As [`attach_xdp`](Self::attach_xdp), and finds out the mode it runs in.
    pub(super) async fn enforce(
        &mut self,
        mode: config::XdpMode,
        pins: &Pins,
        left: &[PathBuf],
        netlink: &Handle,
    ) -> Result<Option<String>, Failure> {
        self.loaded().await?;
        let all = interfaces::list(netlink).await?;
        let interface = interfaces::pick(&all, &self.name)?;
        let note = self.attach_xdp(mode, pins, left, (&interface, &all))?;
        self.look_at_xdp(netlink).await?;

        Ok(note)
    }

    /// Finds out the mode that XDP runs in.
    pub(super) async fn look_at_xdp(&mut self, netlink: &Handle) -> Result<(), Failure> {
        let interface = interfaces::find(netlink, &self.name).await?;
        self.xdp_hook = Some(attach::xdp_hook(&interface)?);

        Ok(())
    }

    pub(super) fn attachment(&self) -> Attachment {
        Attachment {
            interface: self.name.clone(),
            guarded: self.guarded,
            xdp: self.xdp.as_ref().and(self.xdp_hook),
            egress: self.egress.as_ref().and(self.egress_hook),
            received: proof(&self.received),
            sent: proof(&self.sent),
            chain: self.neighbours.chain.clone(),
        }
    }

    fn link(&self, hold: &Attached, program: u32) -> Option<Link> {
        let Attached::Pinned(path) = hold else {
            return None;
        };
        let linked = LinkTarget {
            program,
            interface: self.index,
        };

        Some(Link {
            path: path.clone(),
            linked,
        })
    }

    /// The links that should hold our programs.
    pub(super) fn links(&self) -> impl Iterator<Item = (Hook, &Link)> {
        let xdp = self.xdp.as_ref().and(self.xdp_link.as_ref());
        let egress = self.egress.as_ref().and(self.egress_link.as_ref());
        let named = |hook| move |link| (hook, link);

        xdp.map(named(Hook::Xdp))
            .into_iter()
            .chain(egress.map(named(Hook::Egress)))
    }

    /// Whether there is such an interface, as far as is known.
    pub(super) const fn is_there(&self) -> bool {
        self.index != 0
    }

    /// Whether it has the programs that it should have.
    pub(super) const fn is_complete(&self) -> bool {
        self.egress.is_some() && (self.xdp.is_some() || !self.guarded)
    }

    /// What the programs are to know about this interface, given all there are.
    ///
    /// # Errors
    /// When the kernel does not tell which link addresses the interface accepts.
    pub(super) fn describe(
        &self,
        interfaces: &[Interface],
        layers: &Topology<'_>,
    ) -> anyhow::Result<Device> {
        let mut device = describe(&self.name, &self.addresses(interfaces, layers));
        if let Some(own) = self.find(interfaces) {
            let forwarding = layers.forwarding(own)?;
            device.forwards = forwarding.forwards;
            device.routes_by = forwarding.routes_by;
        }

        Ok(device)
    }

    /// Whether this host routes what comes in by it, if it is there.
    pub(super) fn routes<'a>(
        &self,
        interfaces: &'a [Interface],
        layers: &Topology<'a>,
        family: Family,
    ) -> bool {
        self.find(interfaces)
            .is_none_or(|own| layers.routes(own, family))
    }

    /// Whether the kernel sends on what of IPv6 comes in by it, by `force_forwarding`.
    pub(super) fn forces_forwarding<'a>(
        &self,
        interfaces: &'a [Interface],
        layers: &Topology<'a>,
    ) -> bool {
        self.find(interfaces)
            .is_some_and(|own| layers.forces_forwarding(own))
    }

    /// The prefixes of its neighbours: those of its addresses, and those that routes lead to by this
    /// interface, or one above it, without a gateway.
    pub(super) fn neighbours(
        &self,
        interfaces: &[Interface],
        layers: &Topology<'_>,
        routes: &Routes,
    ) -> BTreeSet<IpNet> {
        let own = self.find(interfaces);
        let above: BTreeSet<_> = own
            .map(|own| layers.above(own))
            .into_iter()
            .flatten()
            .map(|interface| interface.index)
            .collect();
        let leads = routes.on_link.iter();
        let leads = leads.filter(|(interface, _)| above.contains(interface));
        let prefixes = self.addresses(interfaces, layers);

        (prefixes.iter().map(IpNet::trunc))
            .chain(leads.map(|(_, net)| *net))
            .collect()
    }

    /// The addresses of this interface and of those above it, such as a bridge that it is a port
    /// of; where there are none, those of all others.
    fn addresses(&self, interfaces: &[Interface], layers: &Topology<'_>) -> Vec<IpNet> {
        let above = self.find(interfaces).map(|own| layers.above(own));
        let mut addresses: Vec<_> = above
            .iter()
            .flatten()
            .flat_map(|interface| interface.addresses.iter().copied())
            .collect();
        if addresses.is_empty() {
            let others = interfaces
                .iter()
                .filter(|interface| !interface.is_loopback());
            addresses.extend(others.flat_map(|interface| interface.addresses.iter().copied()));
        }

        addresses
    }

    fn find<'a>(&self, interfaces: &'a [Interface]) -> Option<&'a Interface> {
        interfaces
            .iter()
            .find(|interface| interface.name == self.name)
    }
}

fn loaded(programs: &mut Option<Programs>) -> Result<&mut Programs, Failure> {
    (programs.as_mut()).ok_or_else(|| Failure::runtime("its programs are not loaded yet"))
}

/// What the programs know about the interface called `name` before it was looked at.
pub(super) fn unknown(name: &str) -> Device {
    describe(name, &[])
}

fn proof(comparison: &Comparison) -> Proof {
    Proof {
        evidence: comparison.evidence(),
        unseen: comparison.unseen(),
    }
}

/// An interface with these addresses, as far as there is room: the rest is in the local table.
fn describe(name: &str, addresses: &[IpNet]) -> Device {
    let mut device = Device {
        name: [0; 16],
        forwards: 0,
        reserved: 0,
        routes_by: [0; 2],
        ipv4: [V4(0); MAX_OWN_ADDRESSES],
        ipv6: [V6::default(); MAX_OWN_ADDRESSES],
        unused: [0; 20],
    };
    for (byte, of_name) in device.name.iter_mut().zip(name.bytes().take(15)) {
        *byte = of_name;
    }
    let (mut v4, mut v6) = (device.ipv4.iter_mut(), device.ipv6.iter_mut());
    for address in addresses.iter().map(IpNet::addr) {
        match address {
            IpAddr::V4(address) => {
                if let Some(own) = v4.next() {
                    *own = V4::from(address.octets());
                }
            }
            IpAddr::V6(address) => {
                if let Some(own) = v6.next() {
                    *own = V6::from(address.octets());
                }
            }
        }
    }

    device
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn an_interface_has_its_own_addresses() {
        let addresses = ["10.9.0.2/24", "fd09::2/64"].map(|net| net.parse().expect("is a prefix"));
        let device = describe("eth0", &addresses);
        assert_eq!(&device.name[..5], b"eth0\0");
        assert!(device.is_own(V4::from([10, 9, 0, 2])));
        assert!(!device.is_own(V4::from([10, 9, 0, 77])));
        assert!(!device.is_own(V4::from([0, 0, 0, 0])));
        let own: std::net::Ipv6Addr = "fd09::2".parse().expect("is an address");
        assert!(device.is_own(V6::from(own.octets())));
        assert!(!device.is_own(V6::default()));
    }

    #[test]
    fn more_addresses_than_there_is_room_for() {
        let addresses: Vec<IpNet> = (1..=20)
            .map(|last| format!("10.9.0.{last}/24").parse().expect("is a prefix"))
            .collect();
        let device = describe("eth0", &addresses);
        assert!(device.is_own(V4::from([10, 9, 0, 8])));
        assert!(!device.is_own(V4::from([10, 9, 0, 9])));
    }
}
