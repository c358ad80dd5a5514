//! The network cards that a guest is given, and the mode in which each of them is to be guarded.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::version::Version;

/// A card that QEMU emulates.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    name: &'static str,
    device: &'static str,
    /// Queues of the tap behind it.
    queues: u32,
    /// Whether a change is tried on it, too.
    brief: bool,
    /// From which kernel on it is guarded natively, at an MTU of 1500 and of 9000.
    native: [Option<Version>; 2],
    /// Whether frames of 9,000 bytes arrive there without a guard.
    long: bool,
}

const ALWAYS: Option<Version> = Some(Version::new(0, 0));
/// virtio_net gives programs frames in several pieces, and tells so (`NETDEV_XDP_ACT_RX_SG`).
const PIECES: Option<Version> = Some(Version::new(6, 3));

/// Those that are guarded, one after the other.
const CARDS: [Card; 8] = [
    Card {
        name: "virtio",
        device: "virtio-net-pci",
        queues: 1,
        brief: true,
        native: [ALWAYS, PIECES],
        long: true,
    },
    Card {
        name: "virtio-mq",
        device: "virtio-net-pci,mq=on,vectors=6",
        queues: 2,
        brief: false,
        native: [ALWAYS, PIECES],
        long: true,
    },
    Card {
        name: "virtio-big",
        device: "virtio-net-pci,mrg_rxbuf=off",
        queues: 1,
        brief: true,
        native: [None, None],
        long: true,
    },
    Card {
        name: "virtio-small",
        device: "virtio-net-pci,mrg_rxbuf=off,guest_tso4=off,guest_tso6=off,guest_ecn=off,\
                 guest_ufo=off",
        queues: 1,
        brief: false,
        native: [ALWAYS, PIECES],
        long: false,
    },
    Card {
        name: "virtio-fixed",
        device: "virtio-net-pci,ctrl_guest_offloads=off",
        queues: 1,
        brief: false,
        native: [None, None],
        long: true,
    },
    Card {
        name: "virtio-mtu",
        device: "virtio-net-pci,host_mtu=9000",
        queues: 1,
        brief: false,
        native: [ALWAYS, PIECES],
        long: true,
    },
    Card {
        name: "vmxnet3",
        device: "vmxnet3",
        queues: 1,
        brief: false,
        // It forgets its program when it is reset.
        native: [None, None],
        // QEMU's loses them.
        long: false,
    },
    Card {
        name: "e1000e",
        device: "e1000e",
        queues: 1,
        brief: true,
        native: [None, None],
        long: true,
    },
];

/// The peer's card.
const PEER: &str = "virtio-net-pci";

/// The cards of a run.
pub struct Cards(Vec<Card>);

impl Cards {
    /// None at all.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Every kind, or those that a change is tried on.
    pub fn every(brief: bool) -> Self {
        Self(
            CARDS
                .into_iter()
                .filter(|card| card.brief || !brief)
                .collect(),
        )
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the suite in the guest is told: the address of the peer's card, then a line for each
    /// other: its address, its name, the mode at either MTU, and whether it takes long frames.
    pub fn told(&self, kernel: Version) -> String {
        let mut text = format!("{}\n", address(0));
        for (number, card) in (1..).zip(&self.0) {
            let mode = |native: Option<Version>| match native {
                Some(since) if kernel >= since => "native",
                _ => "generic",
            };
            let [usual, large] = card.native.map(mode);
            let long = if card.long { "long" } else { "short" };
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "{} {} {usual} {large} {long}",
                address(number),
                card.name
            );
        }
        text
    }

    /// What QEMU is told. Every card is on a tap of its own, which `script` makes a port of one
    /// bridge: behind QEMU's own hubs a card has no offloads.
    pub fn arguments(&self, script: &Path) -> Vec<String> {
        let peer = (PEER, 1);
        let others = self.0.iter().map(|card| (card.device, card.queues));
        let mut arguments = Vec::new();
        for (number, (device, queues)) in (0..).zip([peer].into_iter().chain(others)) {
            let script = script.display();
            let queues = if queues > 1 {
                format!(",queues={queues}")
            } else {
                String::new()
            };
            arguments.push("-netdev".to_owned());
            arguments.push(format!(
                "tap,id=n{number},ifname=card{number},script={script},downscript=no{queues}"
            ));
            arguments.push("-device".to_owned());
            arguments.push(format!("{device},netdev=n{number},mac={}", address(number)));
        }
        arguments
    }
}

fn address(number: u8) -> String {
    format!("52:54:00:00:00:{number:02x}")
}

/// Makes the bridge in a network namespace that lives as long as QEMU, which takes its place.
pub const LAUNCH: &str = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6 && \
    ip link add br0 type bridge mcast_snooping 0 && ip link set br0 mtu 9100 up && exec \"$@\"";

/// Writes the script that QEMU calls for each tap, and returns its path.
pub fn script(folder: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;

    let path = folder.join("tap-up.sh");
    let text = "#!/bin/sh\nexec ip link set \"$1\" mtu 9100 master br0 up\n";
    std::fs::write(&path, text)
        .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("{} could not be written", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_depends_on_the_kernel() {
        let told = |minor| Cards::every(false).told(Version::new(6, minor));
        assert!(told(1).contains("52:54:00:00:00:01 virtio native generic long\n"));
        assert!(told(12).contains("52:54:00:00:00:01 virtio native native long\n"));
        assert!(told(1).contains(" vmxnet3 generic generic short\n"));
        assert!(told(12).contains(" vmxnet3 generic generic short\n"));
    }

    #[test]
    fn each_card_has_a_tap_and_an_address_of_its_own() {
        let arguments = Cards::every(true).arguments(Path::new("/up.sh"));
        assert_eq!(arguments.len(), 4 * 4);
        assert!(arguments[1].contains("ifname=card0,script=/up.sh,downscript=no"));
        assert!(
            arguments[7].ends_with("netdev=n1,mac=52:54:00:00:00:01"),
            "{arguments:?}"
        );
    }
}
