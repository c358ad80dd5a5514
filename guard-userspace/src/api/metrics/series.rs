//! Which packet counters exist, and what they stand at.

use guard_common::outcome::{Decision, Family, Outcome, Protocol, Verdict};

use crate::{api::snapshot::Snapshot, config::Mode};

/// Whether the series is shown even at 0: it can occur, and in this mode.
pub(super) fn exists(decision: Decision, verdict: Verdict, mode: Mode) -> bool {
    let carried_out = match mode {
        Mode::Enforce => decision.outcome.verdict(),
        Mode::Monitor => Verdict::Pass,
    };

    verdict == carried_out && can_occur(decision)
}

/// Whether a frame can have this outcome: how far it was read decides what is known of it.
const fn can_occur(decision: Decision) -> bool {
    let Decision {
        outcome,
        family,
        protocol,
    } = decision;
    let unread = matches!(family, Family::Other) && matches!(protocol, Protocol::Other);
    let ip = matches!(family, Family::Ipv4 | Family::Ipv6);
    let ports = ip && matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::UdpLite);
    let icmp = ip && matches!(protocol, Protocol::Icmp);

    match outcome {
        Outcome::PassNotIp => unread,
        Outcome::DropVlanDepth => unread,
        // Of the frame itself, or of the packet an ICMPv6 error quotes.
        Outcome::DropHeaderDepth => {
            matches!(family, Family::Ipv6) && matches!(protocol, Protocol::Other | Protocol::Icmp)
        }
        Outcome::DropMalformed => ip || unread,
        Outcome::PassLaterFragment => ip,
        Outcome::DropFragmentDenied => ip,
        Outcome::PassIcmpInfo => icmp,
        Outcome::PassIcmpOutside => icmp,
        Outcome::PassIcmpRelated => icmp,
        Outcome::DropIcmpUnrelated => icmp,
        Outcome::PassOtherProtocol => ip && matches!(protocol, Protocol::Other),
        Outcome::PassOutsideRange => ports,
        Outcome::PassExempt => ports,
        Outcome::PassKnownFlow => ports,
        Outcome::PassRescued => ports,
        // Errors about such packets pass for the same reasons.
        Outcome::PassNotLocal => ports || icmp,
        Outcome::PassTrusted => ports || icmp,
        Outcome::DropNoFlow => ports,
        Outcome::PassNotRecorded => ip || unread,
        Outcome::PassRefreshedFlow => ports,
        Outcome::PassNewFlow => ports,
        Outcome::PassInsertFailed => ports,
    }
}

/// The packet counters of one device.
pub(super) struct FrameSums(Vec<u64>);

impl FrameSums {
    /// The counters of every interface, in their order, then of devices that only have counters.
    pub(super) fn by_device(observation: &Snapshot) -> Vec<(&str, Self)> {
        let mut tallies: Vec<(&str, Self)> = Vec::new();
        for interface in &observation.interfaces {
            Self::of(&mut tallies, &interface.interface);
        }
        for count in &observation.frames {
            let slot = Self::slot(count.decision, count.verdict);
            let tally = Self::of(&mut tallies, &count.device);
            tally.0[slot] = tally.0[slot].saturating_add(count.frames);
        }

        tallies
    }

    pub(super) fn frames(&self, decision: Decision, verdict: Verdict) -> u64 {
        self.0[Self::slot(decision, verdict)]
    }

    fn of<'a, 'b>(tallies: &'a mut Vec<(&'b str, Self)>, device: &'b str) -> &'a mut Self {
        let known = tallies.iter().position(|(name, _)| *name == device);
        let index = known.unwrap_or_else(|| {
            tallies.push((device, Self(vec![0; Decision::SLOTS as usize])));
            tallies.len() - 1
        });

        &mut tallies[index].1
    }

    fn slot(decision: Decision, verdict: Verdict) -> usize {
        decision.slot(verdict) as usize
    }
}
