//! Answers in pieces, and who forges pieces.

use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropFragmentDenied, DropNoFlow, PassKnownFlow, PassLaterFragment, PassNewFlow},
};
use guard_tests::frames::{Frame, P, udp};

use super::{FAMILIES, Lab, MODES, PORT, delivered};

/// What a piece carries, a multiple of 8.
const PIECE: usize = 1_400;

/// The pieces of an answer with so many bytes of data.
fn pieces(id: u16, bytes: usize) -> Vec<Frame> {
    cut(id, bytes, PIECE)
}

/// The same, with so many bytes in each piece, a multiple of 8.
fn cut(id: u16, bytes: usize, piece: usize) -> Vec<Frame> {
    let whole = udp(53, PORT).data(&vec![7; bytes]);
    let length = 8 + bytes;
    (0..length)
        .step_by(piece)
        .map(|start| {
            if start + piece < length {
                whole.clone().piece(id, start..start + piece)
            } else {
                whole.clone().piece(id, start..)
            }
        })
        .collect()
}

/// This host asks the name server.
fn ask(lab: &Lab, family: Family) -> Result<std::net::UdpSocket> {
    let socket = lab.socket(family, PORT)?;
    socket.send_to(b"query", (P.address(family), 53))?;
    Ok(socket)
}

#[test]
fn d11_large_answers_in_order_and_reversed() -> Result<()> {
    for mode in MODES {
        let lab = Lab::new()?;
        let guard = lab.guard(mode, &[])?;
        for family in FAMILIES {
            let server = lab.server(family, 53)?;
            let socket = ask(&lab, family)?;
            // As the peer's own stack cuts it.
            let (_, client) = server.recv_from(&mut [0; 16])?;
            // Its pieces are as long as the link allows, behind headers of 20 or 48 bytes.
            let later = match family {
                Family::Ipv6 => 41,
                Family::Ipv4 | Family::Other => 40,
            };
            guard.expect([(PassKnownFlow, 1), (PassLaterFragment, later)], || {
                server.send_to(&[7; 60_000], client)?;
                Ok(())
            })?;
            ensure!(delivered(&socket) == 1, "{mode}, {family:?}: in order");
            let mut reversed = pieces(1, 60_000);
            reversed.reverse();
            let later = reversed.len() as u64 - 1;
            guard.expect([(PassKnownFlow, 1), (PassLaterFragment, later)], || {
                reversed
                    .iter()
                    .try_for_each(|piece| lab.wire.send(&piece.received(family)))
            })?;
            ensure!(delivered(&socket) == 1, "{mode}, {family:?}: reversed");
        }
    }
    Ok(())
}

/// A forger who knows the name server's address has it refused under every identification, and
/// cuts no genuine answer all the same: its first piece is accepted, which clears the mark.
///
/// Only where pieces overtake the first one do they meet the mark. There is room for marks of one
/// identification in sixteen, and no more answers than these are lost.
#[test]
fn a_forger_of_first_pieces_cuts_no_answer() -> Result<()> {
    // Short ones, because there are many.
    const BYTES: usize = 180;
    const SHORT: usize = 64;
    /// Every 16th identification.
    const SAMPLE: usize = 4_096;
    let sample = |first: u16| (first..=u16::MAX).step_by(16);

    for (mode, family) in MODES.into_iter().zip(FAMILIES) {
        let lab = Lab::new()?;
        let _server = lab.server(family, 53)?;
        let guard = lab.guard(mode, &[])?;
        let socket = ask(&lab, family)?;
        make_room(&socket)?;
        let forged = udp(53, PORT + 1).data(&[7; BYTES]);
        guard.expect([(DropNoFlow, 65_536)], || {
            (0..=u16::MAX).try_for_each(|id| {
                let first = forged.clone().piece(id, 0..SHORT);
                lab.wire.send(&first.received(family))
            })
        })?;

        let before = guard.packets()?;
        for id in sample(0) {
            for piece in cut(id, BYTES, SHORT).iter().rev() {
                lab.wire.send(&piece.received(family))?;
            }
        }
        let heard = delivered(&socket);
        let moved = guard.packets()?.since(&before);
        // The control: some meet a mark. Both of their later pieces do.
        let lost = SAMPLE - heard;
        let denied = moved.of(DropFragmentDenied);
        ensure!(denied == 2 * lost as u64, "{mode}: {lost} lost:{moved}");
        ensure!((1..=SAMPLE / 16 * 2).contains(&lost), "{mode}: {lost} lost");

        let (first, later) = (SAMPLE as u64, 2 * SAMPLE as u64);
        guard.expect([(PassKnownFlow, first), (PassLaterFragment, later)], || {
            for id in sample(8) {
                for piece in cut(id, BYTES, SHORT) {
                    lab.wire.send(&piece.received(family))?;
                }
            }
            Ok(())
        })?;
        let heard = delivered(&socket);
        ensure!(heard == SAMPLE, "{mode}: {heard} of {SAMPLE} answers");
    }
    Ok(())
}

/// Lets all answers wait until they are counted.
fn make_room(socket: &std::net::UdpSocket) -> Result<()> {
    let bytes: libc::c_int = 256 << 20;
    // SAFETY: the option is as long as the call is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    ensure!(
        result == 0,
        "SO_RCVBUFFORCE: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// Pieces of what nobody asked for starve nobody: all of them die.
#[test]
fn unsolicited_pieces_die_together() -> Result<()> {
    for mode in MODES {
        let lab = Lab::new()?;
        for family in FAMILIES {
            let socket = lab.socket(family, PORT)?;
            let send = |id| {
                pieces(id, 3_000)
                    .iter()
                    .try_for_each(|piece| lab.wire.send(&piece.received(family)))
            };
            send(1)?;
            ensure!(delivered(&socket) == 1, "{mode}: lost without a guard");
            let guard = lab.guard(mode, &[])?;
            guard.expect([(DropNoFlow, 1), (DropFragmentDenied, 2)], || send(2))?;
            ensure!(delivered(&socket) == 0, "{mode}, {family:?}: heard");
            guard.expect([(PassNewFlow, 1), (PassKnownFlow, 1)], || {
                let _server = lab.server(family, 53)?;
                socket.send_to(b"query", (P.address(family), 53))?;
                lab.wire.send(&udp(53, PORT).received(family))
            })?;
        }
    }
    Ok(())
}
