//! Debian's xdp-filter, with every port of the range denied.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use guard_tests::{
    netns::Direct,
    setup::{FIRST, LAST},
};

use super::firewall::succeed;

/// Where it pins its maps. There is one set of them for all interfaces.
const PINS: &str = "/sys/fs/bpf/xdp-filter";

/// A filter that is taken off with this.
pub struct XdpFilter<'a> {
    hosts: &'a Direct,
}

impl<'a> XdpFilter<'a> {
    /// Loads it by its own program. It takes one port a call, so the others are written into its
    /// map, as it has written the first.
    pub fn load(hosts: &'a Direct) -> Result<Self> {
        ensure!(
            !Path::new(PINS).exists(),
            "{PINS} exists: another xdp-filter runs on this machine"
        );
        let run = |arguments: &str| {
            let mut command = hosts.guarded.command("xdp-filter");
            succeed(command.args(arguments.split_whitespace()))
        };
        run(&format!("load {}", hosts.interface()))?;
        let filter = Self { hosts };
        run(&format!("port {FIRST} --proto tcp,udp --mode dst"))?;

        let pin = Path::new(PINS).join("filter_ports");
        let data = MapData::from_pin(&pin).with_context(|| format!("open {}", pin.display()))?;
        let mut ports: PerCpuArray<_, u64> = Map::PerCpuArray(data).try_into()?;
        let denied = ports.get(&u32::from(FIRST.to_be()), 0)?;
        for port in FIRST..=LAST {
            let denied = PerCpuValues::try_from(denied.to_vec())?;
            ports.set(u32::from(port.to_be()), denied, 0)?;
        }
        Ok(filter)
    }
}

impl Drop for XdpFilter<'_> {
    fn drop(&mut self) {
        let mut unload = self.hosts.guarded.command("xdp-filter");
        let unloaded = succeed(unload.args(["unload", self.hosts.interface()]));
        // It leaves the folder behind.
        let removed = fs::remove_dir_all(PINS);
        if let (Err(error), true) = (unloaded, removed.is_err()) {
            eprintln!("xdp-filter is left behind: {error:#}");
        }
    }
}
