//! What native mode changes about an interface.

use aya::util::KernelVersion;

use super::{super::DriverFacts, drivers::virtio, ports};

/// What native mode changes about an interface, in words.
pub fn effects(facts: &DriverFacts) -> Vec<String> {
    let mut effects = Vec::new();
    for facts in std::iter::once(facts).chain(ports(facts)) {
        let driver = facts.driver.as_deref().unwrap_or_default();
        if resets_link(driver, facts.host.kernel) {
            effects.push("attaching and taking off resets the link for a moment".to_owned());
        }
        // virtnet_clear_guest_offloads.
        let offloads = virtio::GUEST_GSO | virtio::GUEST_CSUM | virtio::GUEST_USO;
        if facts
            .virtio
            .is_some_and(|features| features & offloads != 0)
        {
            effects.push(
                "the device's receive offloads (guest TSO and checksums) are off while it is guarded"
                    .to_owned(),
            );
        }
    }
    effects.dedup();

    effects
}

/// Drivers that stop and start the hardware when a first program comes or the last goes: read in
/// what each of them has for `ndo_bpf`.
fn resets_link(driver: &str, kernel: KernelVersion) -> bool {
    match driver {
        "ixgbe" | "ixgbevf" | "i40e" | "ice" | "igb" | "bnxt_en" | "ena" | "mlx4_en"
        | "mlx5_core" | "qede" | "vmxnet3" | "gve" | "st_gmac" => true,
        "mana" => kernel >= KernelVersion::new(6, 4, 0),
        // 6.12 still does, 7.3 only stops the queues.
        "igc" => kernel < KernelVersion::new(7, 3, 0),
        _ => false,
    }
}
