//! Who sends a packet, and to which socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use guard_common::outcome::Family;

use super::encoding::{Carried, Encoding};

/// How many peers the guarded hosts ask, over each family and each transport.
pub const PEERS: u32 = 16;
/// The port of each peer.
pub const PEER_PORT: u16 = 4_000;
/// The port of the host that asks every peer, of UDP and of UDP-Lite.
pub const ASKING: u16 = 40_000;
/// The port of the host that asks nobody, of both.
pub const QUIET: u16 = 40_001;
/// The TCP port that asks the first peer; the next asks the next.
pub const CONNECTING: u16 = 40_100;
/// The TCP port on which somebody listens.
pub const LISTENING: u16 = 40_002;
/// The first of some TCP ports that nobody uses, which an unguarded host answers with a reset.
pub const UNUSED: u16 = 41_000;

/// What everything is tried over.
pub const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Who sends it, to which socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// A peer, to the socket that has asked it. Everybody else is an unsolicited sender.
    Peer,
    /// Another port of that peer.
    OtherPort,
    /// Somebody else, from the peer's port.
    OtherAddress,
    /// The peer, to a port from which it was not asked.
    OtherSocket,
    /// The peer, to a group that the host is a member of.
    Group(Group),
}

/// An address of everybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// On the link: 255.255.255.255, ff02::1.
    Link,
    /// In the prefix; of IPv6, the group of the link again.
    Prefix,
    /// 224.0.0.1, ff02::1.
    Hosts,
}

impl Encoding {
    /// Which of the peers it has to do with.
    pub const fn peer(&self) -> u32 {
        self.id % PEERS
    }

    /// Whether the host has asked whom it comes from, or sent what it is an error about.
    pub fn is_answer(&self) -> bool {
        self.sender == Sender::Peer
    }

    /// Whether it is to be delivered, if the kernel does: an answer, or an echo of anybody's.
    pub fn is_welcome(&self) -> bool {
        self.is_answer() || self.carried == Carried::Echo
    }

    /// Where it comes from: errors from a router as often as not.
    pub fn source(&self) -> IpAddr {
        match self.carried {
            Carried::Error(..) if (self.id / PEERS).is_multiple_of(2) => {
                address(self.family, 251, 1 + self.peer())
            }
            Carried::Error(..) => peer_address(self.family, self.peer()),
            Carried::Udp | Carried::UdpLite | Carried::Syn | Carried::Ack(_) | Carried::Echo => {
                self.remote().0
            }
        }
    }

    /// The far end of the flow: the sender's, or that of the packet which an error is about.
    pub fn remote(&self) -> (IpAddr, u16) {
        let peer = peer_address(self.family, self.peer());
        match self.sender {
            Sender::Peer | Sender::OtherSocket | Sender::Group(_) => (peer, PEER_PORT),
            Sender::OtherPort => (peer, 5_000 + (self.id % 50_000) as u16),
            Sender::OtherAddress => {
                let host = self.id / PEERS;
                (
                    address(self.family, 1 + (host / 250) % 250, 1 + host % 250),
                    PEER_PORT,
                )
            }
        }
    }

    /// The host's end of the flow, whose address is also that which the packet goes to.
    pub fn local(&self) -> (IpAddr, u16) {
        let asking = match self.carried {
            Carried::Udp | Carried::UdpLite | Carried::Error(..) | Carried::Echo => ASKING,
            Carried::Syn | Carried::Ack(_) => CONNECTING + self.peer() as u16,
        };
        let port = match (self.sender, self.carried) {
            (Sender::Peer | Sender::Group(_), _) => asking,
            (
                Sender::OtherSocket,
                Carried::Udp | Carried::UdpLite | Carried::Error(..) | Carried::Echo,
            ) => QUIET,
            (Sender::OtherSocket, Carried::Syn | Carried::Ack(_)) if self.id.is_multiple_of(2) => {
                LISTENING
            }
            (Sender::OtherSocket, Carried::Syn | Carried::Ack(_)) => {
                UNUSED + (self.id / 2 % 4_000) as u16
            }
            (Sender::OtherPort | Sender::OtherAddress, _) => asking,
        };
        let group = match self.sender {
            Sender::Group(group) => Some(group),
            Sender::Peer | Sender::OtherPort | Sender::OtherAddress | Sender::OtherSocket => None,
        };
        (destination(self.family, group), port)
    }
}

/// The address of a peer.
pub fn peer_address(family: Family, peer: u32) -> IpAddr {
    address(family, 0, 1 + peer)
}

/// An address behind the link's other end, whose host neither has it nor forwards to it.
fn address(family: Family, net: u32, host: u32) -> IpAddr {
    match family {
        Family::Ipv6 => Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, net as u16, host as u16).into(),
        Family::Ipv4 | Family::Other => Ipv4Addr::new(10, 10, net as u8, host as u8).into(),
    }
}

fn destination(family: Family, group: Option<Group>) -> IpAddr {
    match (family, group) {
        (Family::Ipv6, None) => crate::frames::G.ipv6.into(),
        (Family::Ipv6, Some(_)) => crate::frames::EVERYBODY.ipv6.into(),
        (_, None) => crate::frames::G.ipv4.into(),
        (_, Some(Group::Link)) => crate::frames::EVERYBODY.ipv4.into(),
        (_, Some(Group::Prefix)) => crate::frames::SUBNET.ipv4.into(),
        (_, Some(Group::Hosts)) => Ipv4Addr::new(224, 0, 0, 1).into(),
    }
}
