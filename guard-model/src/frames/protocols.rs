//! What a description of a frame starts with.

use etherparse::TcpHeader;

use super::{
    Carried, Error, Frame,
    payload::{Payload, Quote},
};

/// A UDP datagram.
pub fn udp(source: u16, destination: u16) -> Frame {
    Frame::ip(Payload::Udp {
        source,
        destination,
    })
}

/// A UDP-Lite datagram.
pub fn udp_lite(source: u16, destination: u16) -> Frame {
    Frame::ip(Payload::UdpLite {
        source,
        destination,
    })
}

/// A TCP segment of an open connection: only ACK is set.
pub fn tcp(source: u16, destination: u16) -> Frame {
    let mut header = TcpHeader::new(source, destination, 1000, 65_535);
    header.ack = true;
    header.acknowledgment_number = 2000;
    Frame::ip(Payload::Tcp(Box::new(header)))
}

/// An ICMP or ICMPv6 error about a packet that goes the other way. Eight bytes of that packet's
/// transport header are quoted.
pub fn icmp_error(error: Error, about: Frame) -> Frame {
    let quote = Quote {
        frame: about,
        transport_bytes: 8,
    };
    Frame {
        only: quote.frame.only,
        ..Frame::ip(Payload::Error(error, Box::new(quote)))
    }
}

/// An ICMP message of the first type, or an ICMPv6 message of the second. Its first bytes read
/// like two ports.
pub fn icmp(types: [u8; 2], rest: [u8; 4]) -> Frame {
    Frame::ip(Payload::Icmp { types, rest })
}

/// An IP packet of a protocol with this IANA number.
pub fn protocol(number: u8) -> Frame {
    Frame::ip(Payload::Other(number))
}

/// A frame of these bytes, whatever they are.
pub fn raw(bytes: &[u8]) -> Frame {
    let mut frame = Frame::ip(Payload::Other(0));
    frame.carried = Carried::Raw(bytes.to_vec());
    frame.seen_as_no_ip()
}

/// A frame with this Ethernet type, and these bytes behind it.
pub fn ethernet(ether_type: u16, bytes: &[u8]) -> Frame {
    let mut frame = Frame::ip(Payload::Other(0));
    frame.carried = Carried::Other(ether_type, bytes.to_vec());
    frame.seen_as_no_ip()
}
