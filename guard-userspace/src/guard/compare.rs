//! Comparing what an interface counts with what our programs count, and what is done where these
//! see nothing.

use std::time::Instant;

use anyhow::Context;

use super::device::GuardedDevice;
use crate::{
    alarm::{AlarmKind, Alarms},
    evidence::{Evidence, Sample},
    interfaces::{Interface, Statistics},
    maps::Counted,
    metrics::xdp_label,
    observation::XdpHook,
    pins::{Hook, Pins},
    settings::{self, Settings},
};

/// The alarm about packets that the program at this hook does not see.
const fn unseen(hook: Hook) -> AlarmKind {
    match hook {
        Hook::Xdp => AlarmKind::UnseenReceived,
        Hook::Egress => AlarmKind::UnseenSent,
    }
}

/// Takes what was counted until now. Returns the hooks whose program has just been found to see
/// nothing: the alarm is up when this returns.
pub(super) fn note(
    device: &mut GuardedDevice,
    (statistics, counted): (Statistics, Counted),
    alarms: &Alarms,
) -> Vec<Hook> {
    let now = Instant::now();
    let mut found = Vec::new();
    for (hook, interface, counted) in [
        (Hook::Xdp, statistics.received, counted.received),
        (Hook::Egress, statistics.sent, counted.sent),
    ] {
        if !device.is_attached(hook) {
            device.comparison(hook).restart();
            continue;
        }
        let sample = Sample { interface, counted };
        match device.comparison(hook).note(now, sample) {
            Evidence::NoTraffic => {}
            Evidence::Seen => alarms.clear(&device.name, unseen(hook)),
            Evidence::Unseen if alarms.is_up(&device.name, unseen(hook)) => {}
            Evidence::Unseen => {
                alarms.raise(&device.name, unseen(hook), &text(device, hook));
                found.push(hook);
            }
        }
    }

    found
}

fn text(device: &GuardedDevice, hook: Hook) -> String {
    match (hook, device.xdp_hook) {
        (Hook::Xdp, Some(XdpHook::Generic)) => {
            "the interface receives packets and the XDP program (generic mode) sees none of them, so \
             strangers reach the guarded ports: something brings packets past it, as a redirect by \
             tc mirred does; see who redirects to this interface, or try --xdp-mode native"
                .to_owned()
        }
        (Hook::Xdp, _) => {
            "the interface receives packets and the XDP program (native mode) sees none of them, so \
             strangers reach the guarded ports: the driver does not run it, or something brings \
             packets past it, as bpf_redirect_peer does; use --xdp-mode generic"
                .to_owned()
        }
        (Hook::Egress, _) => {
            "the interface sends packets and the egress program sees none of them, so their answers \
             are dropped: another program or filter ends the chain before it, or all of them bypass \
             it (PACKET_QDISC_BYPASS, AF_XDP, XDP redirects); see tc filter show dev NAME egress, \
             and bpftool net"
                .replace("NAME", &device.name)
        }
    }
}

/// Tries what may help where the program at `hook` has been found to see nothing. Says what was done.
///
/// # Errors
/// When it could not be done. What was in force before is in force then, if it can be.
pub(super) fn cure(
    device: &mut GuardedDevice,
    hook: Hook,
    interface: &Interface,
    settings: &Settings,
    pins: &Pins,
) -> anyhow::Result<String> {
    match hook {
        Hook::Xdp => try_other_mode(device, interface, pins),
        Hook::Egress => attach_egress_anew(device, settings, pins),
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
            xdp_label(former),
            xdp_label(other)
        )),
        Err(failure) => {
            attach_in(device, former, interface, pins)?;
            Err(failure.context(format!("no {} mode", xdp_label(other))))
        }
    }
}

fn attach_in(
    device: &mut GuardedDevice,
    hook: XdpHook,
    interface: &Interface,
    pins: &Pins,
) -> anyhow::Result<()> {
    let mode = match hook {
        XdpHook::Native => settings::XdpMode::Native,
        XdpHook::Generic => settings::XdpMode::Generic,
    };
    device.cure = Some(mode);
    device.attach_xdp(mode, pins, &[], (interface, &[]))?;
    device.xdp_hook = Some(hook);

    Ok(())
}

fn attach_egress_anew(
    device: &mut GuardedDevice,
    settings: &Settings,
    pins: &Pins,
) -> anyhow::Result<String> {
    if let Some(hold) = device.egress.take() {
        hold.release()?;
    }
    device.attach_egress(settings.egress_hook, pins, false)?;

    Ok(format!(
        "{}: the egress program was attached anew",
        device.name
    ))
}
