//! A netlink socket whose messages about links and addresses can be read whatever they hold.
//!
//! The kernel takes any bytes for the name of an interface, and adds attributes with every version.
//! `netlink_packet_route` refuses a whole message over text that is not UTF-8 or over an attribute of another
//! length, and an interface whose message is lost looks like one that is gone. So attributes that nobody here
//! asks for are given a type that stands for nothing, and text becomes ASCII, before it reads them.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use netlink_sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};

use crate::base::slow_answers::{self, Subject};

/// `RTM_NEWLINK`, `RTM_DELLINK`, and the length of `struct ifinfomsg`.
const LINKS: [u16; 2] = [16, 17];
const LINK_HEADER: usize = 16;
/// `RTM_NEWADDR`, `RTM_DELADDR`, and the length of `struct ifaddrmsg`.
const ADDRESSES: [u16; 2] = [20, 21];
const ADDRESS_HEADER: usize = 8;
/// Length of a netlink header, and of that of an attribute.
const MESSAGE_HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;

/// `NLA_TYPE_MASK`, which is no type of an attribute of links or addresses.
const NOTHING: u16 = 0x3fff;

/// What becomes of an attribute.
enum Keep {
    /// It stays as it is.
    Bytes,
    /// It is text.
    Text,
    /// It holds attributes of its own, which are dealt with by another list.
    Nested(fn(u16) -> Keep),
    /// Nobody asks for it.
    Nothing,
}

/// Attributes of a link, include/uapi/linux/if_link.h.
fn of_link(kind: u16) -> Keep {
    match kind {
        // Address, MTU, what it sits on, what it is a port of, statistics, promiscuity, the namespace of what
        // it sits on, XDP, and the largest MTU.
        1 | 4 | 5 | 10 | 23 | 30 | 37 | 43 | 51 => Keep::Bytes,
        // Its name.
        3 => Keep::Text,
        // IFLA_LINKINFO, of which its kind is asked for.
        18 => Keep::Nested(|kind| if kind == 1 { Keep::Text } else { Keep::Nothing }),
        // IFLA_PROP_LIST, of which other names are.
        52 => Keep::Nested(|kind| {
            if kind == 53 {
                Keep::Text
            } else {
                Keep::Nothing
            }
        }),
        _ => Keep::Nothing,
    }
}

/// Attributes of an address, include/uapi/linux/if_addr.h: its flags, and both ends of it.
fn of_address(kind: u16) -> Keep {
    match kind {
        1 | 2 | 8 => Keep::Bytes,
        _ => Keep::Nothing,
    }
}

/// Makes the payload of one message about a link readable.
pub(super) fn make_link_readable(payload: &mut [u8]) {
    attributes(payload.get_mut(LINK_HEADER..), of_link);
}

/// Makes the messages of a datagram readable. One that ends within a message is left as it is from there on.
fn make_readable(datagram: &mut [u8]) {
    let mut rest = datagram;
    while rest.len() >= MESSAGE_HEADER {
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let kind = u16::from_ne_bytes([rest[4], rest[5]]);
        if length < MESSAGE_HEADER || length > rest.len() {
            return;
        }
        let (message, _) = rest.split_at_mut(length);
        let payload = &mut message[MESSAGE_HEADER..];
        if LINKS.contains(&kind) {
            make_link_readable(payload);
        } else if ADDRESSES.contains(&kind) {
            attributes(payload.get_mut(ADDRESS_HEADER..), of_address);
        }
        // Messages start at multiples of four bytes.
        let next = length.next_multiple_of(4).min(rest.len());
        rest = &mut rest[next..];
    }
}

fn attributes(bytes: Option<&mut [u8]>, keep: fn(u16) -> Keep) {
    let Some(mut rest) = bytes else { return };
    while rest.len() >= ATTRIBUTE_HEADER {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        // Without the flags for nested attributes and for network byte order.
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & NOTHING;
        if length < ATTRIBUTE_HEADER || length > rest.len() {
            return;
        }
        match keep(kind) {
            Keep::Bytes => {}
            Keep::Text => to_ascii(&mut rest[ATTRIBUTE_HEADER..length]),
            Keep::Nested(inner) => attributes(rest.get_mut(ATTRIBUTE_HEADER..length), inner),
            Keep::Nothing => rest[2..4].copy_from_slice(&NOTHING.to_ne_bytes()),
        }
        let next = length.next_multiple_of(4).min(rest.len());
        rest = &mut rest[next..];
    }
}

/// What is not UTF-8 becomes a character that nobody types, byte by byte, so that it is no other's name.
fn to_ascii(text: &mut [u8]) {
    const SUBSTITUTE: u8 = 0x1a;

    if std::str::from_utf8(text).is_err() {
        for byte in text.iter_mut().filter(|byte| !byte.is_ascii()) {
            *byte = SUBSTITUTE;
        }
    }
}

/// A socket that makes readable what it receives.
pub(super) struct Readable(TokioSocket);

impl AsyncSocket for Readable {
    fn socket_ref(&self) -> &Socket {
        self.0.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.0.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        TokioSocket::new(protocol).map(Self)
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        slow_answers::wait(Subject::Interfaces);
        self.0.poll_send(cx, buf)
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        addr: &SocketAddr,
    ) -> Poll<io::Result<usize>> {
        slow_answers::wait(Subject::Interfaces);
        self.0.poll_send_to(cx, buf, addr)
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.poll_recv_from(cx, buf)
            .map(|received| received.map(drop))
    }

    fn poll_recv_from<B: BufMut>(
        &self,
        cx: &mut Context<'_>,
        buf: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        let received = ready!(self.poll_recv_from_full(cx));

        Poll::Ready(received.map(|(datagram, from)| {
            buf.put_slice(&datagram);
            from
        }))
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        let received = ready!(self.0.poll_recv_from_full(cx));

        Poll::Ready(received.map(|(mut datagram, from)| {
            make_readable(&mut datagram);
            (datagram, from)
        }))
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLA_F_NESTED, NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::RouteNetlinkMessage;

    use super::*;
    use crate::host::interfaces::query;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((ATTRIBUTE_HEADER as u16 + value.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, header: usize, attributes: &[Vec<u8>]) -> Vec<u8> {
        let attributes = attributes.concat();
        let length = MESSAGE_HEADER + header + attributes.len();
        let mut bytes = vec![0; MESSAGE_HEADER + header];
        bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(attributes);
        bytes
    }

    fn link(name: &[u8], altname: &[u8]) -> Vec<u8> {
        message(
            LINKS[0],
            LINK_HEADER,
            &[
                attribute(3, name),
                attribute(4, &1_500_u32.to_ne_bytes()),
                // An alias, and a queueing discipline of the future.
                attribute(20, b"of mine \xff\0"),
                attribute(6, &[0xfe; 3]),
                // Statistics of another length.
                attribute(7, &[1; 5]),
                attribute(18 | NLA_F_NESTED, &attribute(1, b"veth\0")),
                attribute(52 | NLA_F_NESTED, &attribute(53, altname)),
            ],
        )
    }

    #[test]
    fn names_of_any_bytes_can_be_read() {
        let mut datagram = link(b"v\xc3(g\0", b"x\xff\0");
        let second = link(b"vh\0", "\u{fc}\0".as_bytes());
        let address = message(
            ADDRESSES[0],
            ADDRESS_HEADER,
            &[attribute(2, &[10, 9, 0, 2]), attribute(3, b"v\xff\0")],
        );
        let first = datagram.len();
        datagram.extend([&second[..], &address[..]].concat());
        make_readable(&mut datagram);

        let read = |bytes: &[u8]| {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes);
            message.expect("is readable").payload
        };
        let named = |bytes: &[u8]| match read(bytes) {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                let interface = query::interface(&link);
                assert_eq!(
                    (interface.mtu, interface.kind.as_deref()),
                    (1_500, Some("veth"))
                );
                (interface.name, interface.altnames)
            }
            other => panic!("{other:?} is no link"),
        };
        let (name, altnames) = named(&datagram[..first]);
        assert_eq!(
            (&name[..], &altnames[..]),
            ("v\u{1a}(g", &["x\u{1a}".to_owned()][..])
        );
        let (name, altnames) = named(&datagram[first..]);
        assert_eq!(
            (&name[..], &altnames[..]),
            ("vh", &["\u{fc}".to_owned()][..])
        );
        let address = read(&datagram[first + second.len()..]);
        assert!(matches!(
            address,
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(_))
        ));
    }

    #[test]
    fn what_ends_too_soon_is_left() {
        let whole = link(b"vg\0", b"x\xff\0");
        for length in 0..whole.len() {
            let mut part = whole[..length].to_vec();
            make_readable(&mut part);
            // Its length says more than there is.
            assert_eq!(part, whole[..length]);
            if length >= 4 {
                part[..4].copy_from_slice(&(length as u32).to_ne_bytes());
                make_readable(&mut part);
            }
        }
    }
}
