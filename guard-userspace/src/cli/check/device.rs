//! The interfaces of a run, and the programs on them.

use super::{CheckReport, Item};
use crate::{
    base::failure::{Exit, Failure},
    bpf::{
        attach::{self, Plan, ProgramNames, Row, XdpHook},
        pins::Pins,
        programs::ProgramIds,
        syscalls::tcx,
    },
    config::{EgressMode, Settings, XdpMode},
    guard::lifecycle::find_wanted,
    host::{
        driver::{self, DriverFacts, Obstacle},
        interfaces::{Interface, named, names},
    },
};

/// Says whether each interface can be guarded at all.
pub(super) fn interfaces(settings: &Settings, all: &[Interface], report: &mut CheckReport) {
    for name in settings.iface.iter().chain(&settings.egress_iface) {
        let item = format!("interface {name}");
        let Some(interface) = named(all, name) else {
            report.items.push(Item::note(
                item,
                "no such interface, a run waits for it",
                Some(names(all)),
            ));
            report.missing.push(name.clone());
            continue;
        };
        match interface.require_guardable() {
            Ok(()) => {
                report.ok(item, describe(name, interface));
                if settings.iface.contains(name) {
                    report.there.push(name.clone());
                }
            }
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
pub(super) fn programs(
    settings: &Settings,
    all: &[Interface],
    pins: &Pins,
    report: &mut CheckReport,
) {
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
            xdp(settings, (interface, all), pins, report);
        }
        egress(settings, interface, pins, report);
    }
}

fn xdp(
    settings: &Settings,
    (interface, all): (&Interface, &[Interface]),
    pins: &Pins,
    report: &mut CheckReport,
) {
    let item = format!("xdp {}", interface.name);
    let ours = attach::pinned_xdp(pins, interface.index);
    if let Err(failure) = interface.require_free(|id| ours.contains(&id)) {
        report.problem(item, &failure);
        return;
    }

    let facts = DriverFacts::observe(interface, all);
    let plan = Plan::new(settings.xdp_mode, &interface.name, &facts);
    let warning = match plan.generic_warning(&interface.name) {
        Err(failure) if plan.hook == XdpHook::Generic => {
            report.problem(item, &failure);
            return;
        }
        Ok(Some(warning)) if plan.hook == XdpHook::Generic => Some(warning),
        Ok(_) | Err(_) => None,
    };
    report.items.push(match (settings.xdp_mode, &plan.unfit) {
        (XdpMode::Generic, _) => Item::ok(item, "generic mode, as asked for"),
        (XdpMode::Auto, Some(unfit)) => {
            let mode = match unfit.obstacle {
                Obstacle::Worse => "generic mode",
                Obstacle::Refused | Obstacle::Unsafe => "generic mode, which is slower",
            };
            let remedy = unfit.remedy.as_ref();
            Item::note(
                item,
                format!("{mode}: {}", unfit.why),
                remedy.map(|remedy| format!("for native mode, {remedy}")),
            )
        }
        (XdpMode::Native, Some(unfit)) if unfit.obstacle == Obstacle::Refused => {
            let failure =
                Failure::unavailable(unfit.why.clone()).remedy(attach::native_remedy(Some(unfit)));
            report.problem(item, &failure);
            return;
        }
        (XdpMode::Native, Some(unfit)) => Item::note(
            item,
            format!("native mode, as asked for, but {}", unfit.why),
            Some("leave --xdp-mode at auto".to_owned()),
        ),
        (XdpMode::Auto | XdpMode::Native, None) => {
            let mut text = "native mode".to_owned();
            if !plan.certain {
                text += if settings.xdp_mode == XdpMode::Auto {
                    ", or generic mode if the driver refuses, which shows only when a program is \
                     attached"
                } else {
                    ", if the driver takes it, which shows only when a program is attached"
                };
            }
            for effect in &plan.effects {
                text = format!("{text}; {effect}");
            }
            if plan.certain && plan.effects.is_empty() {
                Item::ok(item, text)
            } else {
                Item::note(item, text, None)
            }
        }
    });
    if let Some(warning) = warning {
        let item = format!("xdp {}", interface.name);
        report.note(item, format!("generic mode: {warning}"));
    }
}

fn egress(settings: &Settings, interface: &Interface, pins: &Pins, report: &mut CheckReport) {
    let item = format!("egress {}", interface.name);
    let tcx = tcx::is_there(&interface.name);
    let clsact = match settings.egress_hook {
        EgressMode::Clsact => true,
        EgressMode::Auto => !tcx,
        EgressMode::Tcx => false,
    };
    if clsact && let Err(failure) = attach::require_room_for_clsact(&interface.name) {
        report.problem(item, &failure);
        return;
    }
    match others(settings, interface, pins, (clsact, tcx)) {
        Ok(None) => {}
        Ok(Some(others)) => report.note(item.clone(), others),
        Err(failure) => {
            report.problem(item, &failure);
            return;
        }
    }
    match (settings.egress_hook, tcx) {
        (EgressMode::Clsact, _) => report.ok(item, "recorded by clsact, as asked for"),
        (_, true) => report.ok(item, "recorded by TCX"),
        (EgressMode::Auto, false) => report.items.push(Item::note(
            item,
            "recorded by clsact, whose filters other tools can remove",
            Some("Linux 6.6 has TCX, which they cannot".to_owned()),
        )),
        (EgressMode::Tcx, false) => report.problem(
            item,
            &Failure::unavailable(format!("{}: the kernel has no TCX", interface.name))
                .remedy("run Linux 6.6 or later, or leave --egress-hook at auto"),
        ),
    }
}

/// Who else sees what an interface sends, in words.
fn others(
    settings: &Settings,
    interface: &Interface,
    pins: &Pins,
    (clsact, tcx): (bool, bool),
) -> Result<Option<String>, Failure> {
    let own = ProgramIds {
        earlier: attach::pinned_egress(pins, interface.index),
        ..ProgramIds::default()
    };
    let Ok(row) = Row::of(interface.index) else {
        // A caller that may not ask is told so by the check of privileges.
        return Ok(None);
    };
    let mut names = ProgramNames::default();
    let hook = if clsact {
        attach::EgressHook::Clsact
    } else {
        attach::EgressHook::Tcx
    };
    let in_front = names.describe(&attach::obstacles(&row, hook, &own));
    if !in_front.is_empty() && !settings.allow_filter_in_front {
        let asked = tcx && !row.programs.is_empty();
        return Err(attach::refused_behind(&interface.name, &in_front, asked));
    }
    let behind = names.describe(&attach::others(&row, hook, &own));
    let line = |place: &str, others: &[String]| {
        (!others.is_empty()).then(|| format!("{place} ours: {}", others.join("; ")))
    };
    let lines: Vec<_> = [line("before", &in_front), line("after", &behind)]
        .into_iter()
        .flatten()
        .collect();

    Ok((!lines.is_empty()).then(|| lines.join("; ")))
}

/// Such as `veth, up, MTU 1500, 2 receive queues`.
fn describe(asked: &str, interface: &Interface) -> String {
    let driver = driver::name(&interface.name)
        .or_else(|| interface.kind.clone())
        .unwrap_or_else(|| "unknown driver".to_owned());
    let state = if interface.up { "up" } else { "down" };
    let queues = driver::channels(&interface.name);
    let queues = match queues.map(|queues| queues.receive + queues.combined) {
        Some(1) => ", 1 receive queue".to_owned(),
        Some(queues) if queues > 0 => format!(", {queues} receive queues"),
        Some(_) | None => String::new(),
    };

    let name = if interface.name == asked {
        String::new()
    } else {
        format!("{}, ", interface.name)
    };

    format!("{name}{driver}, {state}, MTU {}{queues}", interface.mtu)
}
