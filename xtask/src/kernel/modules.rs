//! Which modules the guest needs, and in which order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::fetch::Kernel;

/// What the suites need of the kernel that Debian builds as modules. The guest has no modprobe
/// that the kernel could call, so what it would load by itself is named too.
const NEEDED: [&str; 7] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "8021q",
];

/// What drives network cards under QEMU.
const FOR_CARDS: [&str; 4] = ["virtio_pci", "virtio_net", "vmxnet3", "e1000e"];

/// The module files of `kernel` that the guest needs, each after those it depends on.
pub fn needed(kernel: &Kernel, cards: bool) -> Result<Vec<PathBuf>> {
    let folder = kernel.root.join("lib/modules").join(&kernel.release);
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let listed = read("modules.dep")?;
    let dependencies = Dependencies::parse(&listed);
    let built_in = read("modules.builtin")?;

    let mut order = Vec::new();
    let for_cards = FOR_CARDS.iter().filter(|_| cards);
    for &name in NEEDED.iter().chain(for_cards) {
        if built_in.lines().any(|path| module_name(path) == name) {
            continue;
        }
        dependencies.load(name, &mut order).with_context(|| {
            format!(
                "Linux {} has no module {name}, which the suites need",
                kernel.release
            )
        })?;
    }
    Ok(order.into_iter().map(|path| folder.join(path)).collect())
}

/// What `modules.dep` says: for each module, by name, its path and the paths it depends on.
struct Dependencies<'a>(BTreeMap<String, (&'a str, Vec<&'a str>)>);

impl<'a> Dependencies<'a> {
    fn parse(text: &'a str) -> Self {
        let entries = text.lines().filter_map(|line| {
            let (path, rest) = line.split_once(':')?;
            Some((module_name(path), (path, rest.split_whitespace().collect())))
        });
        Self(entries.collect())
    }

    /// Appends `name` to `order`, after whatever it depends on.
    fn load(&self, name: &str, order: &mut Vec<&'a str>) -> Result<()> {
        let Some((path, dependencies)) = self.0.get(name) else {
            bail!("modules.dep does not name {name}");
        };
        for dependency in dependencies {
            if !order.contains(dependency) {
                self.load(&module_name(dependency), order)?;
            }
        }
        if !order.contains(path) {
            order.push(path);
        }
        Ok(())
    }
}

/// `kernel/drivers/net/veth.ko.xz` is the module `veth`; a dash in a file name is an underscore.
fn module_name(path: &str) -> String {
    let file = Path::new(path)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: &str = "kernel/net/a.ko.xz: kernel/net/c.ko.xz kernel/net/b-d.ko.xz\n\
                           kernel/net/b-d.ko.xz: kernel/net/c.ko.xz\n\
                           kernel/net/c.ko.xz:\n";

    #[test]
    fn a_module_comes_once_and_after_its_dependencies() {
        let dependencies = Dependencies::parse(MODULES);
        let mut order = Vec::new();
        dependencies.load("a", &mut order).unwrap();
        dependencies.load("b_d", &mut order).unwrap();
        assert_eq!(
            order,
            [
                "kernel/net/c.ko.xz",
                "kernel/net/b-d.ko.xz",
                "kernel/net/a.ko.xz"
            ]
        );
    }

    #[test]
    fn an_unknown_module_is_an_error() {
        assert!(
            Dependencies::parse(MODULES)
                .load("e", &mut Vec::new())
                .is_err()
        );
    }
}
