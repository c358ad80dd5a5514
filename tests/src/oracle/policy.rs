//! What is taken from peers too, although the kernel would deliver it, and why.

use super::encoding::Encoding;

/// A kind of packets that the guard drops no matter who sends them.
#[derive(Debug)]
pub struct Exception {
    /// What it is.
    pub name: &'static str,
    /// Why nobody misses it.
    pub reason: &'static str,
    applies: fn(&Encoding) -> bool,
}

/// All of them. Whatever else a peer loses is a bug.
pub static EXCEPTIONS: [Exception; 5] = [
    Exception {
        name: "more than four tags",
        reason: "No network stacks more than two. The kernel takes off as many tags of id 0 as \
                 there are, so passing them unread would open the guard.",
        applies: |encoding| encoding.tags.len() > 4,
    },
    Exception {
        name: "more than eight extension headers",
        reason: "RFC 8200 has each of them once but one, and RFC 7045 lets a firewall give up.",
        applies: |encoding| {
            let fragment = usize::from(!encoding.pieces.is_empty());
            let own = encoding.outer.len() + encoding.inner.len() + fragment;
            own > 8 || encoding.quote.extensions.len() > 8
        },
    },
    Exception {
        name: "another first piece before the rest",
        reason: "The first piece that came last decides, since later ones do not say whose they \
                 are. Anyone who knows the identification and slips one in between can as well \
                 have the kernel discard the datagram, by a piece that overlaps.",
        applies: a_later_piece_is_refused,
    },
    Exception {
        name: "a first piece without the ports",
        reason: "RFC 7112 has all headers in the first fragment of an IPv6 datagram, and ICMP \
                 errors are short enough for every link. Where the ports are not, nothing says \
                 whose it is.",
        applies: |encoding| {
            let end = headers(encoding) + encoding.telling();
            let pieces = encoding.pieces.iter();
            let mut firsts = pieces.filter(|piece| piece.start == 0 && piece.more);
            firsts.any(|piece| piece.end < end)
        },
    },
    Exception {
        name: "an error about a later piece",
        reason: "What it quotes is payload, where the kernel reads ports all the same: anyone who \
                 can have this host send chosen bytes could so forge errors about any flow.",
        applies: |encoding| encoding.quote.fragment & 0x1fff != 0,
    },
];

/// The exception that explains why this packet is dropped.
pub fn exception(encoding: &Encoding) -> Option<&'static Exception> {
    EXCEPTIONS
        .iter()
        .find(|exception| (exception.applies)(encoding))
}

/// Bytes of headers between the fragment header and the transport's.
fn headers(encoding: &Encoding) -> usize {
    encoding.inner.iter().map(|header| header.bytes.len()).sum()
}

/// Whether a later piece comes when the first one that came last was refused: an unsolicited sender's, or one
/// that ends before the ports.
fn a_later_piece_is_refused(encoding: &Encoding) -> bool {
    let ports = headers(encoding)..headers(encoding) + encoding.telling();
    let mut refused = false;
    encoding.pieces.iter().any(|piece| match piece.start {
        0 if piece.more => {
            refused = piece.forged || ports.contains(&piece.end);
            false
        }
        // A whole datagram of its own.
        0 => false,
        _ => refused,
    })
}
