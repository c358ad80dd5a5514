//! What drivers ask of an interface before they take a program, each rule with the function of Linux
//! that holds it.

use aya::util::KernelVersion;

use super::{
    super::{Channels, DriverFacts},
    NativeUnfit, Obstacle,
};

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
pub mod virtio {
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    pub const MTU: u64 = 1 << 3;
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// `VIRTIO_NET_F_GUEST_TSO4`, `TSO6`, `ECN` and `UFO`.
    pub const GUEST_GSO: u64 = 0b1111 << 7;
    /// `VIRTIO_NET_F_GUEST_USO4` and `USO6`.
    pub const GUEST_USO: u64 = 0b11 << 54;
}

/// Whether the driver gives our program frames in several pieces, so that no MTU is too large.
fn takes_frags(facts: &DriverFacts) -> bool {
    facts.host.frags && facts.support.is_some_and(|support| support.frags)
}

/// `virtnet_xdp_set` and what comes after it.
pub fn virtio_net(name: &str, facts: &DriverFacts) -> Option<NativeUnfit> {
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
pub fn gve(name: &str, facts: &DriverFacts) -> Option<NativeUnfit> {
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
pub fn vmxnet3(facts: &DriverFacts) -> NativeUnfit {
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

/// What every other driver asks of its offloads, frames and queues.
pub fn any(name: &str, driver: &str, facts: &DriverFacts) -> Option<NativeUnfit> {
    offloads(name, driver, facts)
        .or_else(|| frame_length(name, driver, facts))
        .or_else(|| queues(name, driver, facts))
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
