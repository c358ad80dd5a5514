//! Comparing what an interface counts with what our programs count, and what is done where these
//! see nothing.

use std::time::Instant;

use anyhow::Context;
use guard_common::outcome::Direction;

use super::device::GuardedDevice;
use crate::{
    bpf::{attach::XdpHook, maps::PacketTotals, pins::Pins},
    config::Settings,
    guard::{
        alarms::{AlarmKind, Alarms},
        evidence::{Discrepancy, Sample},
    },
    host::interfaces::{Interface, Statistics},
};

/// The alarm about packets in this direction that the program does not see.
const fn unseen(direction: Direction) -> AlarmKind {
    match direction {
        Direction::Ingress => AlarmKind::UnseenReceived,
        Direction::Egress => AlarmKind::UnseenSent,
    }
}

/// What there is to decide by, and whom to tell.
pub(super) struct Around<'a> {
    pub(super) settings: &'a Settings,
    pub(super) pins: &'a Pins,
    pub(super) alarms: &'a Alarms,
    pub(super) notes: &'a mut Vec<String>,
}

/// Compares what an interface counts with what `counted` says that its programs have counted. Where
/// one seems to see nothing, looks for the cause, raises an alarm, and tries what may help.
///
/// # Errors
/// When the kernel does not tell what was counted.
pub(super) fn look(
    device: &mut GuardedDevice,
    (interface, statistics): &(Interface, Statistics),
    counted: impl Fn(u32) -> anyhow::Result<PacketTotals>,
    around: &mut Around<'_>,
) -> anyhow::Result<()> {
    let counted = counted(device.slot)?;
    let received = (statistics.received, counted.received);
    if note(device, Direction::Ingress, received, around.alarms) == Discrepancy::Suspicious {
        answer_received(device, interface, around);
    }
    let sent = (statistics.sent, counted.sent);
    if note(device, Direction::Egress, sent, around.alarms) == Discrepancy::Suspicious {
        answer_sent(device, interface, around);
    }

    Ok(())
}

fn note(
    device: &mut GuardedDevice,
    direction: Direction,
    (interface, counted): (u64, u64),
    alarms: &Alarms,
) -> Discrepancy {
    let (attached, comparison) = match direction {
        Direction::Ingress => (device.xdp.is_some(), &mut device.received),
        Direction::Egress => (device.egress.is_some(), &mut device.sent),
    };
    if !attached {
        comparison.restart();
        return Discrepancy::Nothing;
    }
    let finding = comparison.note(Instant::now(), Sample { interface, counted });
    if finding == Discrepancy::Seen {
        alarms.clear(&device.name, unseen(direction));
    }

    finding
}

fn answer_received(device: &mut GuardedDevice, interface: &Interface, around: &mut Around<'_>) {
    let generic = device.xdp_hook == Some(XdpHook::Generic);
    if generic && counts_for_its_ports(interface) {
        device.received.dismiss(Instant::now());
        return;
    }

    let text = if generic {
        "the interface receives packets and the XDP program (generic mode) sees none of them, so \
         the guarded ports are open: something brings packets past it, as a redirect by tc \
         mirred does; find out what redirects to this interface, or try --xdp-mode native"
    } else {
        "the interface receives packets and the XDP program (native mode) sees none of them, so \
         the guarded ports are open: the driver does not run it, or something brings packets \
         past it, as bpf_redirect_peer does; use --xdp-mode generic"
    };
    device.received.believe();
    around
        .alarms
        .raise(&device.name, unseen(Direction::Ingress), text);
    let tried = try_other_mode(device, interface, around.pins);
    around
        .notes
        .push(tried.unwrap_or_else(|error| format!("{}: {error:#}", device.name)));
}

/// What a bond or a team counts is what its ports have counted, with all that they keep to
/// themselves, such as LACP. In generic mode its program sees what it hands on itself.
fn counts_for_its_ports(interface: &Interface) -> bool {
    matches!(interface.kind.as_deref(), Some("bond" | "team"))
}

fn answer_sent(device: &mut GuardedDevice, interface: &Interface, around: &mut Around<'_>) {
    let (alarms, name) = (around.alarms, device.name.clone());
    let moved = device.arrange_egress(
        around.settings,
        around.pins,
        true,
        (alarms, &mut *around.notes),
    );
    if device.egress.is_none() {
        // It is put back by the next look.
        return;
    }
    let in_front = device.in_front();
    if !moved && matches!(&in_front, Ok(others) if others.is_empty()) {
        if !device.told_elsewhere && !counts_for_its_ports(interface) {
            device.told_elsewhere = true;
            around.notes.push(format!(
                "{name}: sends packets that skip TC, as with PACKET_QDISC_BYPASS, AF_XDP or XDP \
                 redirects, and nothing else; they are not recorded, and answers to guarded ports \
                 are dropped"
            ));
        }
        device.sent.dismiss(Instant::now());
        return;
    }

    let text = match in_front {
        Ok(others) if others.is_empty() => {
            "the interface sends packets and the egress program saw none of them, because another \
             program ran before it; ours was moved to the front"
                .to_owned()
        }
        Ok(others) => format!(
            "the interface sends packets and the egress program sees none of them, so their answers \
             are dropped: {} comes before it and ends the chain; take it off",
            others.join("; ")
        ),
        Err(error) => format!(
            "the interface sends packets and the egress program sees none of them, so their answers \
             are dropped; what runs before it cannot be found out: {error}"
        ),
    };
    device.sent.believe();
    alarms.raise(&name, unseen(Direction::Egress), &text);
    if moved {
        device.sent.restart();
    }
}

fn try_other_mode(
    device: &mut GuardedDevice,
    interface: &Interface,
    pins: &Pins,
) -> anyhow::Result<String> {
    let name = device.name.clone();
    let (other, former) = match device.xdp_hook {
        _ if device.cure.is_some() => {
            return Ok(format!(
                "{name}: the XDP program sees nothing in either mode"
            ));
        }
        Some(XdpHook::Native) => (XdpHook::Generic, XdpHook::Native),
        // Other drivers have been found to take no program, or none that works.
        Some(XdpHook::Generic) if interface.kind.as_deref() == Some("veth") => {
            (XdpHook::Native, XdpHook::Generic)
        }
        Some(XdpHook::Generic) | None => {
            return Ok(format!("{name}: there is no other XDP mode to try"));
        }
    };

    let hold = device.xdp.take().context("no XDP program is attached")?;
    hold.release()?;
    match attach_in(device, other, interface, pins) {
        Ok(()) => Ok(format!(
            "{name}: the XDP program saw nothing in {} mode and runs in {} mode now",
            former.label(),
            other.label()
        )),
        Err(failure) => {
            attach_in(device, former, interface, pins)?;
            Err(failure.context(format!("no {} mode", other.label())))
        }
    }
}

fn attach_in(
    device: &mut GuardedDevice,
    hook: XdpHook,
    interface: &Interface,
    pins: &Pins,
) -> anyhow::Result<()> {
    let mode = hook.into();
    device.cure = Some(mode);
    device.attach_xdp(mode, pins, &[], (interface, &[]))?;
    device.xdp_hook = Some(hook);

    Ok(())
}
