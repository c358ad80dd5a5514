//! Which XDP mode is taken on an interface, and why: pure, so that `check` says what `run` does.
//!
//! What drivers ask for was read in Linux 6.1, 6.12 and 7.3; each rule names the function that
//! holds it. A driver without a rule is asked when the program is attached, and where it refuses
//! the guard is generic.

use std::fmt;

use aya::util::KernelVersion;

use super::{Channels, DriverFacts};

/// `ETH_HLEN`.
const ETHERNET: u32 = 14;
/// `VLAN_HLEN`.
const VLAN: u32 = 4;
/// `ETH_FCS_LEN`.
const CHECKSUM: u32 = 4;
/// `XDP_PACKET_HEADROOM`: what drivers leave free before a frame.
const HEADROOM: u32 = 256;
/// `SKB_DATA_ALIGN(sizeof(struct skb_shared_info))`: what they leave free behind it.
const TAILROOM: u32 = 320;

/// Bits of virtio's features, include/uapi/linux/virtio_net.h.
mod virtio {
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    pub const MTU: u64 = 1 << 3;
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// `VIRTIO_NET_F_GUEST_TSO4`, `TSO6`, `ECN` and `UFO`.
    pub const GUEST_GSO: u64 = 0b1111 << 7;
    /// `VIRTIO_NET_F_GUEST_USO4` and `USO6`.
    pub const GUEST_USO: u64 = 0b11 << 54;
}

/// What is worth knowing of a driver that is the place for the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NativeFit {
    /// Whether the driver is known to run XDP programs in this state. Otherwise that shows only when
    /// one is attached.
    pub certain: bool,
    /// What native mode changes there.
    pub effects: Vec<String>,
}

/// Why the driver is no place for the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NativeUnfit {
    /// What keeps it from there.
    pub obstacle: Obstacle,
    /// The driver's reason.
    pub why: String,
    /// What would make native mode possible.
    pub remedy: Option<String>,
}

/// What keeps a program out of a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// The driver refuses it.
    Refused,
    /// The driver takes it, and frames get past it or lost.
    Unsafe,
    /// The driver takes it, and generic mode does better.
    Worse,
}

impl fmt::Display for NativeUnfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; for native mode, {remedy}"),
            None => Ok(()),
        }
    }
}

impl NativeUnfit {
    fn refused(why: impl Into<String>) -> Self {
        Self {
            obstacle: Obstacle::Refused,
            why: why.into(),
            remedy: None,
        }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// Whether `auto` takes native mode on the interface called `name`.
///
/// # Errors
/// Why it takes generic mode.
pub fn choose(name: &str, facts: &DriverFacts) -> Result<NativeFit, NativeUnfit> {
    match obstacle(name, facts) {
        Some(unfit) => Err(unfit),
        None => Ok(NativeFit {
            certain: runs_xdp(facts) == Some(true)
                && ports(facts).all(|port| runs_xdp(port) == Some(true)),
            effects: effects(facts),
        }),
    }
}

/// The receive offload that the kernel wants to be off for generic mode, and that cannot be turned
/// off there: it warns of that in its log when the program is attached, and runs the program all the
/// same (`generic_xdp_install`, net/core/dev.c). It looks for LRO at the ports of a bond, too.
pub fn generic_warning(facts: &DriverFacts) -> Option<&'static str> {
    if facts.fixed_lro || ports(facts).any(|port| port.fixed_lro) {
        return Some("LRO");
    }

    facts.fixed_hw_gro.then_some("HW-GRO")
}

fn ports(facts: &DriverFacts) -> impl Iterator<Item = &DriverFacts> {
    facts.ports.iter().map(|(_, port)| port)
}

fn obstacle(name: &str, facts: &DriverFacts) -> Option<NativeUnfit> {
    if facts.kind.as_deref() == Some("veth") {
        // bpf_redirect_peer: net/core/filter.c, skb_do_redirect; generic XDP comes after it.
        return Some(NativeUnfit {
            obstacle: Obstacle::Worse,
            why: "frames that other programs redirect into a veth never meet native XDP, and bulk \
                  traffic is faster in generic mode"
                .to_owned(),
            remedy: None,
        });
    }
    if runs_xdp(facts) == Some(false) {
        let driver = facts.driver.as_deref().or(facts.kind.as_deref());
        return Some(NativeUnfit::refused(match driver {
            Some(driver) => format!("the driver {driver} runs no XDP programs in this state"),
            None => "the driver runs no XDP programs".to_owned(),
        }));
    }
    // bond_xdp_set, drivers/net/bonding/bond_main.c, puts the program on each of its ports.
    if let Some((port, unfit)) = facts
        .ports
        .iter()
        .find_map(|(port, facts)| Some((port, obstacle(port, facts)?)))
    {
        return Some(NativeUnfit {
            why: format!("its port {port}: {}", unfit.why),
            ..unfit
        });
    }

    match facts.driver.as_deref()? {
        "virtio_net" => virtio_net(name, facts),
        // xennet_xdp_set, drivers/net/xen-netfront.c: without feature-xdp-headroom of the backend,
        // which only the backend shows, it says yes and does nothing.
        "vif" => Some(NativeUnfit {
            obstacle: Obstacle::Unsafe,
            why: "xen-netfront may take a program and never run it".to_owned(),
            remedy: None,
        }),
        "gve" => gve(name, facts),
        "vmxnet3" => Some(vmxnet3(facts)),
        driver => offloads(name, driver, facts)
            .or_else(|| frame_length(name, driver, facts))
            .or_else(|| queues(name, driver, facts)),
    }
}

/// Whether the driver runs XDP programs, where that is known: before Linux 6.3 nothing tells, but
/// some drivers never did.
fn runs_xdp(facts: &DriverFacts) -> Option<bool> {
    if let Some(support) = facts.support {
        return Some(support.native);
    }

    let host = |major, minor| facts.host.kernel >= KernelVersion::new(major, minor, 0);
    match (facts.kind.as_deref(), facts.driver.as_deref()) {
        (
            Some("bridge" | "vlan" | "macvlan" | "macvtap" | "ipvlan" | "vxlan" | "team" | "dummy"),
            _,
        ) => Some(false),
        // bond_xdp_set, since Linux 5.15.
        (Some("bond"), _) => Some(host(5, 15)),
        (
            _,
            Some(
                "e1000" | "e1000e" | "r8169" | "8139cp" | "8139too" | "tg3" | "bnx2" | "bnx2x"
                | "forcedeth" | "pcnet32" | "vmxnet3" | "gve",
            ),
        ) => Some(false),
        (
            _,
            Some(
                "virtio_net" | "ena" | "bnxt_en" | "mlx4_en" | "mlx5_core" | "i40e" | "ixgbe"
                | "ixgbevf" | "ice" | "igb" | "hv_netvsc" | "qede",
            ),
        ) => Some(true),
        (_, Some("igc")) => Some(host(5, 13)),
        (_, Some("mana")) => Some(host(5, 17)),
        _ => None,
    }
}

/// Whether the driver gives our program frames in several pieces, so that no MTU is too large.
fn takes_frags(facts: &DriverFacts) -> bool {
    facts.host.frags && facts.support.is_some_and(|support| support.frags)
}

fn virtio_net(name: &str, facts: &DriverFacts) -> Option<NativeUnfit> {
    let (kernel, host) = (facts.host.kernel, facts.host);
    let features = facts.virtio?;
    let has = |bits: u64| features & bits != 0;

    // virtnet_xdp_set, drivers/net/virtio_net.c.
    let offloads = virtio::GUEST_GSO | virtio::GUEST_CSUM | virtio::GUEST_USO;
    if has(offloads) && !has(virtio::CTRL_GUEST_OFFLOADS) {
        return Some(
            NativeUnfit::refused(
                "virtio_net cannot turn the receive offloads of its device off \
                 (no ctrl_guest_offloads)",
            )
            .remedy(
                "start the virtual machine with ctrl_guest_offloads=on, or with guest_csum, \
                 guest_tso4, guest_tso6, guest_ecn and guest_ufo off",
            ),
        );
    }
    // receive_buf: buffers of the kind `big` are never shown to the program, and there are no
    // others without mergeable ones where the device may send more than 1,500 bytes
    // (virtnet_set_big_packets).
    let long = has(virtio::MTU) && facts.max_mtu.is_some_and(|mtu| mtu > 1500);
    if !has(virtio::MRG_RXBUF) && (has(virtio::GUEST_GSO) || long) {
        let (why, remedy) = if has(virtio::GUEST_GSO) {
            (
                "guest TSO",
                "guest_tso4, guest_tso6, guest_ecn and guest_ufo off",
            )
        } else {
            ("an MTU of its device above 1500", "host_mtu=1500")
        };
        return Some(NativeUnfit {
            obstacle: Obstacle::Unsafe,
            why: format!(
                "virtio_net without mergeable receive buffers and with {why} takes a program and \
                 never runs it"
            ),
            remedy: Some(format!(
                "start the virtual machine with mrg_rxbuf=on, or with {remedy}"
            )),
        });
    }
    // xdp_linearize_page: before it could give frames in several pieces, it dropped what does not
    // fit a page with the header of virtio.
    let most = host.page - HEADROOM - TAILROOM - 20 - ETHERNET - VLAN;
    if kernel < KernelVersion::new(6, 3, 0) && facts.mtu > most {
        return Some(NativeUnfit {
            obstacle: Obstacle::Unsafe,
            why: format!(
                "virtio_net before Linux 6.3 loses long frames under native XDP, and the MTU is {}",
                facts.mtu
            ),
            remedy: Some(lower_mtu(name, most)),
        });
    }
    // virtnet_xdp_set of Linux 5.10; later ones do with fewer queues, and send by locks.
    let channels = facts.channels.unwrap_or_default();
    let needed = channels.combined + host.processors;
    if kernel < KernelVersion::new(5, 13, 0) && needed > channels.max_combined {
        return Some(
            NativeUnfit::refused(format!(
                "virtio_net before Linux 5.13 needs {needed} queues, and has {}",
                channels.max_combined
            ))
            .remedy(format!("give the virtual machine {needed} queues")),
        );
    }

    None
}

/// gve_verify_xdp_configuration, drivers/net/ethernet/google/gve/gve_main.c.
fn gve(name: &str, facts: &DriverFacts) -> Option<NativeUnfit> {
    /// A receive buffer, less the Ethernet header and `GVE_RX_PAD`.
    const MOST: u32 = 2048 - ETHERNET - 2;

    offloads(name, "gve", facts)
        .or_else(|| too_long(name, "gve", facts, MOST))
        .or_else(|| {
            let Channels {
                receive,
                transmit,
                max_transmit,
                ..
            } = facts.channels?;
            let most = max_transmit / 2;
            (receive != transmit || transmit > most).then(|| {
                let queues = receive.min(most).max(1);
                NativeUnfit::refused(format!(
                    "gve needs as many queues to send as to receive, and {most} of each at most"
                ))
                .remedy(format!("`ethtool -L {name} rx {queues} tx {queues}`"))
            })
        })
}

/// Nothing would make native mode possible, so no remedy is named.
fn vmxnet3(facts: &DriverFacts) -> NativeUnfit {
    // vmxnet3_xdp.h, VMXNET3_XDP_MAX_MTU.
    let most = facts.host.page - HEADROOM - TAILROOM - ETHERNET - 2 * VLAN - CHECKSUM;
    if facts.mtu > most {
        return NativeUnfit::refused(format!(
            "vmxnet3 takes XDP programs up to MTU {most}, and it is {}",
            facts.mtu
        ));
    }

    // vmxnet3_rq_cleanup_all, drivers/net/vmxnet3/vmxnet3_drv.c: what empties its queues forgets the
    // program, which the kernel shows all the same.
    NativeUnfit {
        obstacle: Obstacle::Unsafe,
        why: "vmxnet3 forgets its program when the interface goes down or its MTU changes"
            .to_owned(),
        remedy: None,
    }
}

/// Receive offloads that drivers cannot have beside a program.
fn offloads(name: &str, driver: &str, facts: &DriverFacts) -> Option<NativeUnfit> {
    let (lro, hw_gro) = match driver {
        // netvsc_xdp_set, drivers/net/hyperv/netvsc_bpf.c; ixgbe_xdp_setup (its RSC is LRO).
        "hv_netvsc" | "ixgbe" => (facts.lro, false),
        // mlx5e_xdp_allowed, drivers/net/ethernet/mellanox/mlx5/core/en_main.c.
        "mlx5_core" | "gve" => (facts.lro, facts.hw_gro),
        _ => (false, false),
    };
    let (feature, flag) = match (lro, hw_gro) {
        (true, _) => ("LRO", "lro"),
        (_, true) => ("HW-GRO", "rx-gro-hw"),
        _ => return None,
    };

    Some(
        NativeUnfit::refused(format!(
            "{driver} refuses XDP programs while {feature} is on"
        ))
        .remedy(format!("`ethtool -K {name} {flag} off`")),
    )
}

/// The longest frames that drivers take beside a program.
fn frame_length(name: &str, driver: &str, facts: &DriverFacts) -> Option<NativeUnfit> {
    let page = facts.host.page;
    let most = match driver {
        // ena_xdp.h, ENA_XDP_MAX_MTU; its pages are of 16 KiB at most.
        "ena" => page.min(16 * 1024) - ETHERNET - CHECKSUM - VLAN - HEADROOM - TAILROOM,
        // netvsc_xdp_set: the frame is rounded up to a cache line of 64 bytes.
        "hv_netvsc" => (page - HEADROOM - TAILROOM) / 64 * 64 - ETHERNET,
        // include/net/mana/mana.h, MANA_XDP_MTU_MAX.
        "mana" => page - TAILROOM - ETHERNET - HEADROOM,
        // mlx4/en_netdev.c, MLX4_EN_MAX_XDP_MTU.
        "mlx4_en" => page - ETHERNET - 2 * VLAN - HEADROOM - TAILROOM,
        // ixgbe_xdp_setup, ixgbevf_xdp_setup and i40e_xdp_setup: buffers of 3 KiB, or of 2 KiB
        // where pages are of 8 KiB or more.
        "ixgbe" | "ixgbevf" | "i40e" => buffer(page) - ETHERNET - CHECKSUM - VLAN,
        // igb_xdp_setup, ice_xdp_setup_prog: the same with two tags.
        "igb" | "ice" => buffer(page) - ETHERNET - CHECKSUM - 2 * VLAN,
        // igc_xdp_set_prog, stmmac_xdp_set_prog, netsec_xdp_setup.
        "igc" | "st_gmac" | "netsec" => 1500,
        // bnxt_xdp_set, BNXT_MAX_PAGE_MODE_MTU, but for programs that read frames in pieces.
        "bnxt_en" if !facts.host.frags => page - ETHERNET - VLAN - HEADROOM - TAILROOM,
        _ => return None,
    };

    too_long(name, driver, facts, most)
}

fn buffer(page: u32) -> u32 {
    if page < 8192 { 3072 } else { 2048 }
}

fn too_long(name: &str, driver: &str, facts: &DriverFacts, most: u32) -> Option<NativeUnfit> {
    (facts.mtu > most && !takes_frags(facts)).then(|| {
        NativeUnfit::refused(format!(
            "{driver} takes XDP programs up to MTU {most}, and it is {}",
            facts.mtu
        ))
        .remedy(lower_mtu(name, most))
    })
}

fn lower_mtu(name: &str, most: u32) -> String {
    format!("`ip link set dev {name} mtu {most}`")
}

/// What drivers ask of queues.
fn queues(name: &str, driver: &str, facts: &DriverFacts) -> Option<NativeUnfit> {
    let channels = facts.channels.unwrap_or_default();
    match driver {
        // ena_xdp_legal_queue_count, ena_xdp.h.
        "ena" if channels.combined * 2 > channels.max_combined => {
            let most = (channels.max_combined / 2).max(1);
            Some(
                NativeUnfit::refused(format!(
                    "ena needs half of its {} queues for XDP, and uses {}",
                    channels.max_combined, channels.combined
                ))
                .remedy(format!("`ethtool -L {name} combined {most}`")),
            )
        }
        // bnxt_xdp_set: BNXT_FLAG_SHARED_RINGS.
        "bnxt_en" if channels.combined == 0 && channels.receive > 0 => Some(
            NativeUnfit::refused("bnxt_en needs queues that both send and receive for XDP").remedy(
                format!(
                    "`ethtool -L {name} rx 0 tx 0 combined {}`",
                    channels.receive
                ),
            ),
        ),
        // ixgbe_xdp_setup.
        "ixgbe" if facts.virtual_functions > 0 => Some(
            NativeUnfit::refused(format!(
                "ixgbe refuses XDP programs while it has {} virtual functions",
                facts.virtual_functions
            ))
            .remedy(format!(
                "`echo 0 > /sys/class/net/{name}/device/sriov_numvfs`"
            )),
        ),
        // ixgbe_xdp_setup: IXGBE_MAX_XDP_QS.
        "ixgbe" if facts.host.processors > 128 => Some(NativeUnfit::refused(format!(
            "ixgbe refuses XDP programs with {} processors",
            facts.host.processors
        ))),
        _ => None,
    }
}

/// What native mode changes about an interface.
fn effects(facts: &DriverFacts) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::{super::Host, *};
    use crate::host::driver::Support;

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
            CTRL_GUEST_OFFLOADS as CTRL, GUEST_CSUM as CSUM, GUEST_GSO as GSO, MRG_RXBUF as MRG,
            MTU,
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
}
