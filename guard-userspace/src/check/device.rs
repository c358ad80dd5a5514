//! The interfaces of a run, and the programs on them.

use aya::programs::{SchedClassifier, TcAttachType};

use super::{Item, Report, driver, system};
use crate::{
    attach,
    failure::{Exit, Failure},
    guard::find_wanted,
    interfaces::{Interface, named, names},
    pins::Pins,
    programs,
    settings::{EgressHook, Settings, XdpMode},
};

/// The largest MTU at which veth runs a program that cannot read frames in several pieces, where
/// pages are of 4 KiB.
/// <https://github.com/torvalds/linux/blob/v6.12/drivers/net/veth.c#L1560>
const VETH_MTU: u32 = 3500;

/// Says whether each interface can be guarded at all.
pub(super) fn interfaces(settings: &Settings, all: &[Interface], report: &mut Report) {
    for name in settings.iface.iter().chain(&settings.egress_iface) {
        let item = format!("interface {name}");
        let Some(interface) = named(all, name) else {
            report.items.push(Item::note(
                item,
                "no such interface, a run waits for it",
                Some(names(all)),
            ));
            continue;
        };
        match interface.require_guardable() {
            Ok(()) => report.ok(item, describe(name, interface)),
            Err(failure) => report.problem(item, &failure),
        }
    }
    if let Err(failure) = find_wanted(settings, all)
        && failure.code == Exit::BadConfiguration
    {
        report.problem("interfaces", &failure);
    }
}

/// Says what runs on each interface already, and how ours would.
pub(super) fn programs(settings: &Settings, all: &[Interface], pins: &Pins, report: &mut Report) {
    let guarded = settings.iface.iter().map(|name| (name, true));
    let recorded = settings.egress_iface.iter().map(|name| (name, false));
    for (name, guarded) in guarded.chain(recorded) {
        let Some(interface) = named(all, name) else {
            continue;
        };
        if interface.require_guardable().is_err() {
            continue;
        }
        if guarded {
            xdp(settings, interface, pins, report);
        }
        egress(settings, interface, report);
    }
}

/// Whether the kernel has TCX. Who may not ask on an interface goes by the version.
/// <https://github.com/torvalds/linux/commit/e420bed02507>
pub(super) fn has_tcx(interface: &str) -> bool {
    match SchedClassifier::query_tcx(interface, TcAttachType::Egress) {
        Ok(_) => true,
        Err(error) if attach::errno(&error) == Some(libc::EINVAL) => false,
        Err(_) => system::is_since(6, 6),
    }
}

fn xdp(settings: &Settings, interface: &Interface, pins: &Pins, report: &mut Report) {
    let item = format!("xdp {}", interface.name);
    let ours = attach::pinned_xdp(pins, interface.index);
    if let Err(failure) = interface.require_free(|id| ours.contains(&id)) {
        report.problem(item, &failure);
        return;
    }

    let generic = "guarded in generic mode, which is slower";
    match (settings.xdp_mode, driver::runs_xdp(interface.index)) {
        (XdpMode::Generic, _) => report.ok(item, "generic mode, as asked for"),
        (XdpMode::Native, Some(false)) => report.problem(
            item,
            &Failure::unavailable("the driver runs no XDP programs")
                .remedy("leave --xdp-mode at auto for a driver without XDP"),
        ),
        (XdpMode::Auto, Some(false)) => {
            report.note(item, format!("the driver runs no XDP programs: {generic}"));
        }
        (XdpMode::Auto | XdpMode::Native, known) => {
            let native = match known {
                Some(_) => "the driver runs XDP programs",
                None => "whether the driver runs XDP programs shows only when one is attached",
            };
            match peculiarity(interface) {
                Some(peculiarity) => report.note(item, format!("{native}; {peculiarity}")),
                None if known.is_none() => report.note(item, native),
                None => report.ok(item, native),
            }
        }
    }
}

/// What is worth knowing about native XDP on such an interface.
fn peculiarity(interface: &Interface) -> Option<String> {
    let kind = interface.kind.as_deref();
    let driver = driver::name(&interface.name);
    if kind == Some("veth") && interface.mtu > VETH_MTU && !programs::reads_frags() {
        return Some(format!(
            "not on a veth with MTU {}: guarded in generic mode, which is slower",
            interface.mtu
        ));
    }

    match (kind, driver.as_deref()) {
        (Some("veth"), _) => Some(
            "bulk traffic into a veth is faster with --xdp-mode generic, as native mode copies it"
                .to_owned(),
        ),
        (_, Some("virtio_net")) => Some(
            "virtio_net wants a spare queue for each processor and no receive offloads, else it \
             is guarded in generic mode"
                .to_owned(),
        ),
        _ => None,
    }
}

fn egress(settings: &Settings, interface: &Interface, report: &mut Report) {
    let item = format!("egress {}", interface.name);
    let tcx = has_tcx(&interface.name);
    let clsact = match settings.egress_hook {
        EgressHook::Clsact => true,
        EgressHook::Auto => !tcx,
        EgressHook::Tcx => false,
    };
    if clsact && let Err(failure) = attach::require_room_for_clsact(&interface.name) {
        report.problem(item, &failure);
        return;
    }
    match (settings.egress_hook, tcx) {
        (EgressHook::Clsact, _) => report.ok(item, "recorded by clsact, as asked for"),
        (_, true) => report.ok(item, "recorded by TCX"),
        (EgressHook::Auto, false) => report.items.push(Item::note(
            item,
            "recorded by clsact, whose filters other tools can remove",
            Some("Linux 6.6 has TCX, which they cannot".to_owned()),
        )),
        (EgressHook::Tcx, false) => report.problem(
            item,
            &Failure::unavailable(format!("{}: the kernel has no TCX", interface.name))
                .remedy("run Linux 6.6 or later, or leave --egress-hook at auto"),
        ),
    }
}

/// Such as `veth, up, MTU 1500, 2 receive queues`.
fn describe(asked: &str, interface: &Interface) -> String {
    let driver = driver::name(&interface.name)
        .or_else(|| interface.kind.clone())
        .unwrap_or_else(|| "unknown driver".to_owned());
    let state = if interface.up { "up" } else { "down" };
    let queues = match driver::receive_queues(&interface.name) {
        Some(1) => ", 1 receive queue".to_owned(),
        Some(queues) => format!(", {queues} receive queues"),
        None => String::new(),
    };

    let name = if interface.name == asked {
        String::new()
    } else {
        format!("{}, ", interface.name)
    };

    format!("{name}{driver}, {state}, MTU {}{queues}", interface.mtu)
}
