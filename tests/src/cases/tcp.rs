//! TCP: what opens a flow, what ends it, and what only seems to.

use guard_common::outcome::Outcome::{
    DropNoFlow, PassKnownFlow, PassNewFlow, PassNotRecorded, PassOutsideRange, PassRefreshedFlow,
};

use super::{Case, case};
use crate::{
    frames::{Frame, tcp},
    setup::TIMEOUTS,
};

/// From this host to its peer.
fn out() -> Frame {
    tcp(40_000, 443)
}

/// From the peer.
fn back() -> Frame {
    tcp(443, 40_000)
}

pub(super) fn cases() -> Vec<Case> {
    [opening(), resets(), closing(), expiry()].concat()
}

fn established(name: &'static str) -> Case {
    case(name)
        .sends(out().syn(), PassNewFlow)
        .receives(back().syn_ack(), PassKnownFlow)
        .sends(out(), PassRefreshedFlow)
}

fn opening() -> Vec<Case> {
    vec![
        established("a connection this host opens").receives(back(), PassKnownFlow),
        case("an unsolicited sender's segments, whatever their flags")
            .receives(back().syn(), DropNoFlow)
            .receives(back().syn_ack(), DropNoFlow)
            .receives(back(), DropNoFlow)
            .receives(back().fin(), DropNoFlow)
            .receives(back().rst(), DropNoFlow)
            .receives(back().no_flags(), DropNoFlow)
            .receives(back().no_flags().fin(), DropNoFlow),
        case("answering an unsolicited sender opens nothing")
            .receives(back().syn(), DropNoFlow)
            .sends(out().syn_ack(), PassNotRecorded)
            .receives(back(), DropNoFlow)
            .sends(out().rst(), PassNotRecorded)
            .sends(out().no_flags().rst(), PassNotRecorded)
            .receives(back(), DropNoFlow),
        case("a connection that a service accepts is none of the guard's")
            .receives(tcp(40_000, 443).syn(), PassOutsideRange)
            .sends(tcp(443, 40_000).syn_ack(), PassNotRecorded)
            .sends(tcp(443, 40_000), PassNotRecorded),
        case("both sides open at once")
            .sends(out().syn(), PassNewFlow)
            .receives(back().syn(), PassKnownFlow)
            .sends(out().syn_ack(), PassRefreshedFlow)
            .receives(back().syn_ack(), PassKnownFlow)
            .receives(back(), PassKnownFlow),
        case("both sides open at once, the peer first")
            .receives(back().syn(), DropNoFlow)
            .sends(out().syn(), PassNewFlow)
            .receives(back().syn_ack(), PassKnownFlow),
        case("a connection in its middle is picked up")
            .sends(out(), PassNewFlow)
            .receives(back(), PassKnownFlow),
        case("a connection at its end is picked up")
            .sends(out().fin(), PassNewFlow)
            .receives(back(), PassKnownFlow)
            .receives(back().fin(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory + 1)
            .receives(back(), DropNoFlow),
        case("a challenge, a reset in answer, and a second attempt")
            .sends(out().syn(), PassNewFlow)
            .receives(back(), PassKnownFlow)
            .sends(out().no_flags().rst(), PassRefreshedFlow)
            .sends(out().syn(), PassRefreshedFlow)
            .receives(back().syn_ack(), PassKnownFlow)
            .sends(out(), PassRefreshedFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow),
        case("an eight-byte first fragment has no flags")
            .sends(out().syn(), PassNewFlow)
            .receives(back().rst().piece(7, ..8), PassKnownFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow),
    ]
}

fn resets() -> Vec<Case> {
    vec![
        established("a reset starts the transitory timer")
            .receives(back().rst(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory)
            .receives(back().rst(), PassKnownFlow)
            .waits(1)
            .receives(back(), DropNoFlow),
        established("more resets do not prolong it")
            .receives(back().rst(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory - 1)
            .receives(back().rst(), PassKnownFlow)
            .sends(out().rst(), PassRefreshedFlow)
            .waits(2)
            .receives(back().rst(), DropNoFlow)
            .sends(out().rst(), PassNotRecorded),
        established("any other segment of the peer cancels it")
            .receives(back().rst(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory)
            .receives(back(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow),
        established("any other segment of this host cancels it")
            .receives(back().rst(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory)
            .sends(out(), PassRefreshedFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow),
        established("this host's reset starts it too")
            .sends(out().rst(), PassRefreshedFlow)
            .waits(TIMEOUTS.tcp_transitory + 1)
            .receives(back(), DropNoFlow),
        case("a reset of an attempt to open")
            .sends(out().syn(), PassNewFlow)
            .receives(back().rst(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory + 1)
            .receives(back().syn_ack(), DropNoFlow),
        established("the same ports are used again after a reset")
            .receives(back().rst(), PassKnownFlow)
            .waits(4)
            .sends(out().syn(), PassRefreshedFlow)
            .receives(back().syn_ack(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow),
        established("a RST that carries SYN or FIN is a RST")
            .receives(back().rst().fin(), PassKnownFlow)
            .receives(back().rst().syn_ack(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory + 1)
            .receives(back(), DropNoFlow),
    ]
}

fn closing() -> Vec<Case> {
    vec![
        established("half closed by this host, the peer streams on")
            .sends(out().fin(), PassRefreshedFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow),
        established("half closed by the peer, this host streams on")
            .receives(back().fin(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow)
            .sends(out(), PassRefreshedFlow),
        established("closed by both")
            .sends(out().fin(), PassRefreshedFlow)
            .receives(back().fin(), PassKnownFlow)
            .sends(out(), PassRefreshedFlow)
            .waits(TIMEOUTS.tcp_transitory)
            .receives(back().fin(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory)
            .receives(back(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory + 1)
            .receives(back().fin(), DropNoFlow),
        established("closed by both, the peer first")
            .receives(back().fin(), PassKnownFlow)
            .sends(out().fin(), PassRefreshedFlow)
            .receives(back(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory + 1)
            .receives(back(), DropNoFlow),
        established("the same ports are used again after a close")
            .sends(out().fin(), PassRefreshedFlow)
            .receives(back().fin(), PassKnownFlow)
            .waits(4)
            .sends(out().syn(), PassRefreshedFlow)
            .receives(back().syn_ack(), PassKnownFlow)
            .sends(out(), PassRefreshedFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow),
        established("the same ports are used again after all is forgotten")
            .sends(out().fin(), PassRefreshedFlow)
            .receives(back().fin(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_transitory + 1)
            .sends(out().syn(), PassNewFlow)
            .receives(back().syn_ack(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow),
        established("a flow that expired is not revived by an answer to an unsolicited sender")
            .waits(TIMEOUTS.tcp_established + 1)
            .receives(back(), DropNoFlow)
            .sends(out().rst(), PassNotRecorded)
            .sends(out().syn_ack(), PassNotRecorded)
            .receives(back(), DropNoFlow),
    ]
}

fn expiry() -> Vec<Case> {
    vec![
        case("an attempt to open, at the edge of its timer")
            .sends(out().syn(), PassNewFlow)
            .waits(TIMEOUTS.tcp_syn)
            .receives(back().syn_ack(), PassKnownFlow),
        case("an attempt to open, past its timer")
            .sends(out().syn(), PassNewFlow)
            .waits(TIMEOUTS.tcp_syn + 1)
            .receives(back().syn_ack(), DropNoFlow)
            .sends(out().syn(), PassNewFlow)
            .receives(back().syn_ack(), PassKnownFlow),
        case("a repeated attempt counts from anew")
            .sends(out().syn(), PassNewFlow)
            .waits(TIMEOUTS.tcp_syn)
            .sends(out().syn(), PassRefreshedFlow)
            .waits(TIMEOUTS.tcp_syn)
            .receives(back().syn_ack(), PassKnownFlow),
        established("an idle connection, the peer speaks at the edge")
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow),
        established("an idle connection, the peer speaks too late")
            .waits(TIMEOUTS.tcp_established + 1)
            .receives(back(), DropNoFlow),
        established("an idle connection, this host speaks later still")
            .waits(TIMEOUTS.tcp_established + 1)
            .sends(out(), PassNewFlow)
            .receives(back(), PassKnownFlow)
            .waits(TIMEOUTS.tcp_established)
            .receives(back(), PassKnownFlow),
    ]
}
