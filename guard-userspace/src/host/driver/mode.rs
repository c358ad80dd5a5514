//! Which XDP mode is taken on an interface, and why: pure, so that `check` says what `run` does.
//!
//! What drivers ask for was read in Linux 6.1, 6.12 and 7.3; each rule names the function that
//! holds it. A driver without a rule is asked when the program is attached, and where it refuses
//! the guard is generic.

mod drivers;
mod effects;
#[cfg(test)]
mod tests;

use std::fmt;

use aya::util::KernelVersion;

use self::effects::effects;
use super::DriverFacts;

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
        "virtio_net" => drivers::virtio_net(name, facts),
        // xennet_xdp_set, drivers/net/xen-netfront.c: without feature-xdp-headroom of the backend,
        // which only the backend shows, it says yes and does nothing.
        "vif" => Some(NativeUnfit {
            obstacle: Obstacle::Unsafe,
            why: "xen-netfront may take a program and never run it".to_owned(),
            remedy: None,
        }),
        "gve" => drivers::gve(name, facts),
        "vmxnet3" => Some(drivers::vmxnet3(facts)),
        driver => drivers::any(name, driver, facts),
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
