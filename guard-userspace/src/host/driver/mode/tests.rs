//! Facts of interfaces, and the mode that follows.

use aya::util::KernelVersion;

use super::{
    super::{Channels, DriverFacts, Host, Support},
    NativeFit, choose,
    drivers::virtio,
    generic_warning,
};

const NEW: KernelVersion = KernelVersion::new(6, 12, 0);
const DEBIAN_12: KernelVersion = KernelVersion::new(6, 1, 0);
const OLD: KernelVersion = KernelVersion::new(5, 10, 0);

fn facts(driver: &str, kernel: KernelVersion, mtu: u32) -> DriverFacts {
    // What the kernel says of XDP is known since 6.3.
    let known = kernel >= KernelVersion::new(6, 3, 0);
    DriverFacts {
        kind: None,
        driver: Some(driver.to_owned()),
        mtu,
        max_mtu: None,
        support: known.then_some(Support {
            native: true,
            frags: false,
        }),
        lro: false,
        hw_gro: false,
        fixed_lro: false,
        fixed_hw_gro: false,
        channels: Some(Channels {
            combined: 2,
            max_combined: 8,
            ..Channels::default()
        }),
        virtual_functions: 0,
        virtio: None,
        ports: Vec::new(),
        host: Host {
            kernel,
            frags: kernel >= KernelVersion::new(5, 18, 0),
            page: 4096,
            processors: 2,
            panics_on_warnings: false,
        },
    }
}

fn virtio(features: u64, kernel: KernelVersion, mtu: u32) -> DriverFacts {
    let mut facts = facts("virtio_net", kernel, mtu);
    let frags = features & virtio::MRG_RXBUF != 0;
    facts.virtio = Some(features);
    facts.support = facts.support.map(|_| Support {
        native: true,
        frags,
    });
    facts
}

fn with(change: impl FnOnce(&mut DriverFacts), mut facts: DriverFacts) -> DriverFacts {
    change(&mut facts);
    facts
}

/// Part of the reason for generic mode, or nothing for native mode.
fn reason(facts: &DriverFacts) -> Option<String> {
    match choose("eth0", facts) {
        Ok(NativeFit { .. }) => None,
        Err(unfit) => Some(unfit.to_string()),
    }
}

#[test]
fn the_mode_follows_from_the_facts() {
    use virtio::{
        CTRL_GUEST_OFFLOADS as CTRL, GUEST_CSUM as CSUM, GUEST_GSO as GSO, MRG_RXBUF as MRG, MTU,
    };

    let full = MRG | GSO | CSUM | CTRL;
    // name, facts, part of the reason for generic mode
    let table: Vec<(&str, DriverFacts, Option<&str>)> = vec![
        (
            "veth",
            with(
                |facts| facts.kind = Some("veth".to_owned()),
                facts("veth", NEW, 1500),
            ),
            Some("redirect into a veth"),
        ),
        (
            "no XDP, by the kernel's word",
            with(
                |facts| {
                    facts.support = Some(Support {
                        native: false,
                        frags: false,
                    });
                },
                facts("e1000e", NEW, 1500),
            ),
            Some("e1000e runs no XDP programs"),
        ),
        (
            "no XDP, by its name",
            facts("e1000e", DEBIAN_12, 1500),
            Some("e1000e runs no"),
        ),
        (
            "vmxnet3 before it had XDP",
            facts("vmxnet3", DEBIAN_12, 1500),
            Some("runs no"),
        ),
        ("unknown", facts("whatever", DEBIAN_12, 9000), None),
        // virtio_net
        ("virtio", virtio(full, DEBIAN_12, 1500), None),
        ("virtio, longest", virtio(full, DEBIAN_12, 3482), None),
        (
            "virtio, longer",
            virtio(full, DEBIAN_12, 3483),
            Some("mtu 3482"),
        ),
        ("virtio, long on 6.12", virtio(full, NEW, 9000), None),
        (
            "virtio, big buffers",
            virtio(full & !MRG, DEBIAN_12, 1500),
            Some("never runs it"),
        ),
        (
            "virtio, big buffers on 6.12",
            virtio(full & !MRG, NEW, 1500),
            Some("mrg_rxbuf=on"),
        ),
        (
            "virtio, small buffers",
            virtio(CSUM | CTRL, DEBIAN_12, 1500),
            None,
        ),
        (
            "virtio, small buffers on 6.12",
            virtio(CSUM | CTRL, NEW, 1500),
            None,
        ),
        (
            "virtio, big buffers by MTU",
            with(
                |facts| facts.max_mtu = Some(9000),
                virtio(CTRL | MTU, NEW, 9000),
            ),
            Some("host_mtu=1500"),
        ),
        (
            "virtio, small buffers by MTU",
            with(
                |facts| facts.max_mtu = Some(1500),
                virtio(CTRL | MTU, NEW, 1500),
            ),
            None,
        ),
        (
            "virtio, offloads that stay",
            virtio(MRG | CSUM, NEW, 1500),
            Some("ctrl_guest_offloads=on"),
        ),
        ("virtio, no offloads", virtio(MRG, NEW, 1500), None),
        ("virtio, old with queues", virtio(full, OLD, 1500), None),
        (
            "virtio, old without",
            with(|facts| facts.host.processors = 7, virtio(full, OLD, 1500)),
            Some("needs 9 queues, and has 8"),
        ),
        (
            "virtio, new without",
            with(|facts| facts.host.processors = 7, virtio(full, NEW, 1500)),
            None,
        ),
        ("xen", facts("vif", NEW, 1500), Some("never run it")),
        // Lengths, at and above the limit
        ("ena, longest", facts("ena", NEW, 3498), None),
        (
            "ena, longer",
            facts("ena", NEW, 3499),
            Some("`ip link set dev eth0 mtu 3498`"),
        ),
        (
            "ena, as EC2 has it",
            facts("ena", DEBIAN_12, 9001),
            Some("up to MTU 3498, and it is 9001"),
        ),
        (
            "vmxnet3, longest",
            facts("vmxnet3", NEW, 3494),
            Some("vmxnet3 forgets its program"),
        ),
        (
            "vmxnet3, longer",
            facts("vmxnet3", NEW, 3495),
            Some("up to MTU 3494"),
        ),
        ("hv_netvsc, longest", facts("hv_netvsc", NEW, 3506), None),
        (
            "hv_netvsc, longer",
            facts("hv_netvsc", NEW, 3507),
            Some("up to MTU 3506"),
        ),
        (
            "mana, longer",
            facts("mana", NEW, 3507),
            Some("up to MTU 3506"),
        ),
        (
            "mlx4, longer",
            facts("mlx4_en", NEW, 3499),
            Some("up to MTU 3498"),
        ),
        (
            "ixgbe, longer",
            facts("ixgbe", NEW, 3051),
            Some("up to MTU 3050"),
        ),
        (
            "ixgbevf, longer",
            facts("ixgbevf", NEW, 3051),
            Some("up to MTU 3050"),
        ),
        (
            "igb, longer",
            facts("igb", NEW, 3047),
            Some("up to MTU 3046"),
        ),
        ("igc, longest", facts("igc", NEW, 1500), None),
        (
            "igc, longer",
            facts("igc", NEW, 1501),
            Some("up to MTU 1500"),
        ),
        (
            "i40e, longer",
            facts("i40e", DEBIAN_12, 3051),
            Some("up to MTU 3050"),
        ),
        (
            "i40e that gives pieces",
            with(
                |facts| {
                    facts.support = Some(Support {
                        native: true,
                        frags: true,
                    });
                },
                facts("i40e", NEW, 9000),
            ),
            None,
        ),
        (
            "bnxt, old",
            facts("bnxt_en", OLD, 9000),
            Some("up to MTU 3502"),
        ),
        ("bnxt, pieces", facts("bnxt_en", DEBIAN_12, 9000), None),
        (
            "ena, larger pages",
            with(|facts| facts.host.page = 65_536, facts("ena", NEW, 9001)),
            None,
        ),
        // Offloads
        (
            "hv_netvsc, LRO",
            with(|facts| facts.lro = true, facts("hv_netvsc", NEW, 1500)),
            Some("`ethtool -K eth0 lro off`"),
        ),
        (
            "mlx5, LRO",
            with(|facts| facts.lro = true, facts("mlx5_core", NEW, 1500)),
            Some("while LRO is on"),
        ),
        (
            "mlx5, HW-GRO",
            with(|facts| facts.hw_gro = true, facts("mlx5_core", NEW, 1500)),
            Some("`ethtool -K eth0 rx-gro-hw off`"),
        ),
        (
            "ixgbe, LRO",
            with(|facts| facts.lro = true, facts("ixgbe", NEW, 1500)),
            Some("`ethtool -K eth0 lro off`"),
        ),
        (
            "vmxnet3, LRO, which it turns off",
            with(|facts| facts.lro = true, facts("vmxnet3", NEW, 1500)),
            Some("vmxnet3 forgets its program"),
        ),
        // Queues
        (
            "ena, all queues in use",
            with(
                |facts| {
                    facts.channels = Some(Channels {
                        combined: 8,
                        max_combined: 8,
                        ..Channels::default()
                    });
                },
                facts("ena", NEW, 1500),
            ),
            Some("`ethtool -L eth0 combined 4`"),
        ),
        (
            "gve, all queues in use",
            with(
                |facts| {
                    facts.channels = Some(Channels {
                        receive: 4,
                        transmit: 4,
                        max_transmit: 4,
                        ..Channels::default()
                    });
                },
                facts("gve", NEW, 1460),
            ),
            Some("`ethtool -L eth0 rx 2 tx 2`"),
        ),
        (
            "gve, longer",
            facts("gve", NEW, 8896),
            Some("up to MTU 2032"),
        ),
        (
            "bnxt, queues apart",
            with(
                |facts| {
                    facts.channels = Some(Channels {
                        receive: 4,
                        transmit: 4,
                        ..Channels::default()
                    });
                },
                facts("bnxt_en", NEW, 1500),
            ),
            Some("`ethtool -L eth0 rx 0 tx 0 combined 4`"),
        ),
        (
            "ixgbe, virtual functions",
            with(
                |facts| facts.virtual_functions = 4,
                facts("ixgbe", NEW, 1500),
            ),
            Some("4 virtual functions"),
        ),
        // Bonds
        (
            "bond of the able",
            with(
                |bond| {
                    bond.kind = Some("bond".to_owned());
                    bond.ports = vec![("eth1".to_owned(), facts("ixgbe", NEW, 1500))];
                },
                facts("bonding", NEW, 1500),
            ),
            None,
        ),
        (
            "bond with one that never runs it",
            with(
                |bond| {
                    bond.kind = Some("bond".to_owned());
                    bond.ports = vec![
                        ("eth1".to_owned(), virtio(full, NEW, 1500)),
                        ("eth2".to_owned(), virtio(full & !MRG, NEW, 1500)),
                    ];
                },
                facts("bonding", NEW, 1500),
            ),
            Some("its port eth2: virtio_net without"),
        ),
    ];
    for (name, facts, expected) in table {
        let reason = reason(&facts);
        assert_eq!(reason.is_some(), expected.is_some(), "{name}: {reason:?}");
        let (reason, expected) = (reason.unwrap_or_default(), expected.unwrap_or_default());
        assert!(reason.contains(expected), "{name}: {reason}");
    }
}

#[test]
fn what_native_mode_changes_is_said() {
    // name, facts, whether it is certain, what is said
    let offloads = virtio::MRG_RXBUF | virtio::GUEST_CSUM | virtio::CTRL_GUEST_OFFLOADS;
    let table = [
        (
            "virtio, offloads",
            virtio(offloads, NEW, 1500),
            true,
            vec!["receive offloads"],
        ),
        (
            "virtio, none",
            virtio(virtio::MRG_RXBUF, NEW, 1500),
            true,
            vec![],
        ),
        (
            "ixgbe",
            facts("ixgbe", DEBIAN_12, 1500),
            true,
            vec!["resets the link"],
        ),
        ("unknown", facts("whatever", DEBIAN_12, 1500), false, vec![]),
    ];
    for (name, facts, known, said) in table {
        let Ok(NativeFit { certain, effects }) = choose("eth0", &facts) else {
            panic!("{name}: generic");
        };
        assert_eq!(certain, known, "{name}");
        assert_eq!(effects.len(), said.len(), "{name}: {effects:?}");
        for (effect, said) in effects.iter().zip(said) {
            assert!(effect.contains(said), "{name}: {effect}");
        }
    }
}

#[test]
fn the_kernel_warns_of_what_cannot_be_turned_off() {
    let usual = || facts("virtio_net", NEW, 1500);
    assert_eq!(generic_warning(&usual()), None);
    let changeable = with(|facts| (facts.lro, facts.hw_gro) = (true, true), usual());
    assert_eq!(generic_warning(&changeable), None);
    let hw_gro = with(|facts| facts.fixed_hw_gro = true, usual());
    assert_eq!(generic_warning(&hw_gro), Some("HW-GRO"));
    let bond = |port| {
        with(
            |facts| facts.ports = vec![("eth1".to_owned(), port)],
            usual(),
        )
    };
    assert_eq!(generic_warning(&bond(hw_gro)), None);
    let lro = with(|facts| facts.fixed_lro = true, usual());
    assert_eq!(generic_warning(&bond(lro.clone())), Some("LRO"));
    assert_eq!(generic_warning(&lro), Some("LRO"));
}
