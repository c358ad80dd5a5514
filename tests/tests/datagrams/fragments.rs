//! Answers in pieces, and who forges pieces.

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
    let whole = udp(53, PORT).data(&vec![7; bytes]);
    let length = 8 + bytes;
    (0..length)
        .step_by(PIECE)
        .map(|start| {
            if start + PIECE < length {
                whole.clone().piece(id, start..start + PIECE)
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
#[test]
fn a_forger_of_first_pieces_cuts_no_answer() -> Result<()> {
    // Those of the last ids are surely remembered, however few have room.
    const GENUINE: [u16; 3] = [65_533, 65_534, 65_535];

    for (mode, family) in MODES.into_iter().zip(FAMILIES) {
        let lab = Lab::new()?;
        let _server = lab.server(family, 53)?;
        let guard = lab.guard(mode, &[])?;
        let socket = ask(&lab, family)?;
        let forged = udp(53, PORT + 1).data(&[7; 3_000]);
        guard.expect([(DropNoFlow, 65_536)], || {
            (0..=u16::MAX).try_for_each(|id| {
                let first = forged.clone().piece(id, 0..PIECE);
                lab.wire.send(&first.received(family))
            })
        })?;
        // The control: each of these is refused for now.
        guard.expect([(DropFragmentDenied, 3)], || {
            GENUINE.into_iter().try_for_each(|id| {
                let later = &pieces(id, 3_000)[1];
                lab.wire.send(&later.received(family))
            })
        })?;

        guard.expect([(PassKnownFlow, 3), (PassLaterFragment, 6)], || {
            for id in GENUINE {
                for piece in pieces(id, 3_000) {
                    lab.wire.send(&piece.received(family))?;
                }
            }
            Ok(())
        })?;
        let heard = delivered(&socket);
        ensure!(heard == 3, "{mode}, {family:?}: {heard} of 3 answers");
    }
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
