//! What an interface and its driver are like, as far as it matters to XDP, and which mode follows.

mod ethtool;
mod ioctl;
mod mode;
mod mtu;
mod netdev;

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::util::{KernelVersion, nr_cpus};

pub use self::{
    ethtool::{Channels, channels, name},
    mode::{NativeFit, NativeUnfit, Obstacle, choose, generic_warning},
    mtu::{mtu, set_mtu},
    netdev::Support,
};
use crate::host::{features::Feature, interfaces::Interface};

/// What was observed of one interface.
#[derive(Clone, Debug)]
pub struct DriverFacts {
    /// Its kind, such as `veth`; hardware has none.
    pub kind: Option<String>,
    /// The name of its driver.
    pub driver: Option<String>,
    /// Its MTU.
    pub mtu: u32,
    /// The largest MTU that its driver takes, where it is limited.
    pub max_mtu: Option<u32>,
    /// What its driver does for XDP programs, where the kernel tells.
    pub support: Option<Support>,
    /// Whether it receives several segments as one (LRO).
    pub lro: bool,
    /// Whether its hardware does, in the way of GRO.
    pub hw_gro: bool,
    /// Whether its LRO is on and cannot be turned off.
    pub fixed_lro: bool,
    /// Whether its HW-GRO is on and cannot be turned off.
    pub fixed_hw_gro: bool,
    /// Its queues.
    pub channels: Option<Channels>,
    /// How many virtual functions it has given away.
    pub virtual_functions: u32,
    /// The features that virtio has negotiated, a bit each.
    pub virtio: Option<u64>,
    /// The interfaces that it is made of, by name: those of a bond.
    pub ports: Vec<(String, Self)>,
    /// Of the host.
    pub host: Host,
}

/// What was observed of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// The kernel.
    pub kernel: KernelVersion,
    /// Whether our programs read frames in several pieces there.
    pub frags: bool,
    /// The size of a page of memory.
    pub page: u32,
    /// The processors that there can be.
    pub processors: u32,
    /// Whether the kernel panics where it would only warn.
    pub panics_on_warnings: bool,
}

impl Host {
    fn observe() -> Self {
        // SAFETY: the call takes a number and touches no memory of ours.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };

        Self {
            kernel: KernelVersion::current().unwrap_or(KernelVersion::new(0, 0, 0)),
            frags: Feature::XdpFrags.is_expected(),
            page: u32::try_from(page).unwrap_or(4096),
            processors: nr_cpus().map_or(1, |count| count as u32),
            panics_on_warnings: fs::read_to_string("/proc/sys/kernel/panic_on_warn")
                .is_ok_and(|text| text.trim() != "0"),
        }
    }
}

impl DriverFacts {
    /// Looks at an interface, which is one of `all`.
    pub fn observe(interface: &Interface, all: &[Interface]) -> Self {
        let bond = interface.kind.as_deref() == Some("bond");
        let ports = all
            .iter()
            .filter(|port| bond && port.controller == Some(interface.index))
            // A bond cannot be a port of a bond.
            .map(|port| (port.name.clone(), Self::observe(port, &[])))
            .collect();

        let driver = name(&interface.name);
        let features = ethtool::features(&interface.name);
        let find = |name: &str| features.iter().find(|feature| feature.name == name);
        let on = |name: &str| find(name).is_some();
        let fixed = |name: &str| find(name).is_some_and(|feature| feature.fixed);
        let folder = device_folder(interface);
        let virtio = folder
            .as_deref()
            .filter(|_| driver.as_deref() == Some("virtio_net"))
            .and_then(negotiated);
        let virtual_functions = folder
            .and_then(|folder| fs::read_to_string(folder.join("sriov_numvfs")).ok())
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);

        Self {
            kind: interface.kind.clone(),
            driver,
            mtu: interface.mtu,
            max_mtu: interface.max_mtu,
            support: netdev::support(interface.index),
            lro: on("rx-lro"),
            hw_gro: on("rx-gro-hw"),
            fixed_lro: fixed("rx-lro"),
            fixed_hw_gro: fixed("rx-gro-hw"),
            channels: channels(&interface.name),
            virtual_functions,
            virtio,
            ports,
            host: Host::observe(),
        }
    }
}

/// The folder of the device below an interface in sysfs. By its place on the PCI bus, which no
/// network namespace hides; else by its name, unless sysfs is another namespace's, where an
/// interface of the same name is another one.
fn device_folder(interface: &Interface) -> Option<PathBuf> {
    let bus = ethtool::bus(&interface.name).map(|bus| Path::new("/sys/bus/pci/devices").join(bus));
    if let Some(folder) = bus.filter(|folder| folder.is_dir()) {
        return Some(folder);
    }

    let folder = Path::new("/sys/class/net").join(&interface.name);
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let index: u32 = read("ifindex")?.trim().parse().ok()?;
    let octets = interface.mac?.octets();
    let address = octets.map(|byte| format!("{byte:02x}")).join(":");
    let same = index == interface.index && read("address")?.trim() == address;

    same.then(|| folder.join("device"))
}

/// The features that virtio has negotiated for a device: below it where it is a PCI device.
fn negotiated(folder: &Path) -> Option<u64> {
    let below = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    let virtio = below
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let number = name.strip_prefix("virtio");
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        })
        .unwrap_or_else(|| folder.to_owned());

    virtio_features(&fs::read_to_string(virtio.join("features")).ok()?)
}

/// Reads features of virtio: a character for each, the first one first.
/// <https://github.com/torvalds/linux/blob/v6.12/drivers/virtio/virtio.c#L53>
fn virtio_features(text: &str) -> Option<u64> {
    let mut features = 0;
    for (number, digit) in text.trim().bytes().take(64).enumerate() {
        match digit {
            b'0' => {}
            b'1' => features |= 1 << number,
            _ => return None,
        }
    }

    Some(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_of_virtio_are_read_first_one_first() {
        assert_eq!(virtio_features("0110\n"), Some(0b110));
        let mut longer = "0".repeat(128);
        longer.replace_range(63..64, "1");
        assert_eq!(virtio_features(&longer), Some(1 << 63));
        assert_eq!(virtio_features("01x"), None);
    }
}
