//! The kernel, what is pinned in it, and whether it takes the programs.

use std::path::Path;

use nix::sys::utsname::uname;

use super::{CheckReport, Item};
use crate::{
    bpf::{
        maps::Maps,
        pins::{Hook, PinFolder, Pins},
        programs::Programs,
        syscalls::tcx,
    },
    config::Settings,
    host::{features::Feature, interfaces::Interface},
};

/// Says which kernel this is, and what it has.
pub(super) fn kernel(settings: &Settings) -> Item {
    let release = uname().map_or_else(
        |_| "unknown".to_owned(),
        |names| names.release().to_string_lossy().into_owned(),
    );
    let tcx = match settings.iface.first() {
        Some(interface) => tcx::is_there(interface),
        None => Feature::Tcx.is_expected(),
    };
    let btf = ("BTF", Path::new("/sys/kernel/btf/vmlinux").exists());
    let features: Vec<_> = Feature::ALL
        .iter()
        .map(|&feature| match feature {
            Feature::Tcx => (feature.name(), tcx),
            _ => (feature.name(), feature.is_expected()),
        })
        .chain([btf])
        .collect();
    let list = |present: bool| -> Vec<_> {
        features
            .iter()
            .filter(|feature| feature.1 == present)
            .map(|feature| feature.0)
            .collect()
    };
    let (has, lacks) = (list(true), list(false));
    let text = match (has.is_empty(), lacks.is_empty()) {
        (true, _) => format!("Linux {release}, without {}", lacks.join(", ")),
        (false, true) => format!("Linux {release}, with {}", has.join(", ")),
        (false, false) => format!(
            "Linux {release}, with {}, without {}",
            has.join(", "),
            lacks.join(", ")
        ),
    };

    if lacks.is_empty() {
        Item::ok("kernel", text)
    } else {
        Item::note("kernel", text, None)
    }
}

/// Says whether there is a place to pin, and what an earlier run has left there.
pub(super) fn pins(
    pins: &Pins,
    all: &[Interface],
    settings: &Settings,
    running: bool,
    report: &mut CheckReport,
) {
    let shown = settings.pin_dir.display();
    match pins.inspect() {
        Ok(PinFolder::Ready) => report.ok("bpffs", format!("{shown} is on bpffs")),
        Ok(PinFolder::Unmounted) => {
            report.note("bpffs", "not mounted, a run mounts it at its usual place");
        }
        Err(failure) => report.problem("bpffs", &failure),
    }
    if let Some(passing) = pins.passing() {
        report.note("bpffs", passing);
    }
    for folder in pins.abandoned() {
        report.items.push(Item::note(
            "leftovers",
            format!(
                "{}: of a network namespace or of interfaces that are gone, a run removes it",
                folder.display()
            ),
            Some("so does `portguard detach`".to_owned()),
        ));
    }
    if running {
        return;
    }

    let fits = Maps::fit(pins, settings.max_flows.get());
    let folders = pins.others();
    for left in folders.iter().chain([pins]).filter(|pins| pins.exist()) {
        let fate = if left.folder() == pins.folder() && fits {
            "a run adopts them"
        } else {
            "a run makes maps of its own, and carries their flows over as far as it can read them"
        };
        report.items.push(Item::note(
            "leftovers",
            format!("of an earlier run: {}: {fate}", pinned(left, all)),
            Some("`portguard detach` removes them".to_owned()),
        ));
    }
}

/// What is pinned in a folder, such as `maps of v1, eth0 (XDP), eth0 (egress)`.
fn pinned(pins: &Pins, all: &[Interface]) -> String {
    let links = pins.links().into_iter().map(|(index, hook, _)| {
        let name = all
            .iter()
            .find(|interface| interface.index == index)
            .map_or_else(|| format!("interface {index}"), |found| found.name.clone());
        let hook = match hook {
            Hook::Xdp => "XDP",
            Hook::Egress => "egress",
            Hook::EgressLast | Hook::Moving => "egress copy",
        };
        format!("{name} ({hook})")
    });

    std::iter::once(format!("maps of {}", pins.name()))
        .chain(links)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Loads the programs and attaches them nowhere. They go when they are dropped.
pub(super) fn trial(report: &mut CheckReport) -> Option<Programs> {
    match Programs::try_out().and_then(|mut programs| programs.clock().map(|_| programs)) {
        Ok(programs) => {
            report.ok("programs", "the kernel takes them");
            Some(programs)
        }
        Err(failure) => {
            report.problem("programs", &failure);
            None
        }
    }
}
