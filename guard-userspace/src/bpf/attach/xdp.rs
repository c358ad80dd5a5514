//! The XDP program on an interface.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use aya::programs::{
    Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};

use super::{
    Attached,
    errors::{cause, native_refused, refused_xdp},
    release_pin,
};
use crate::{
    base::failure::Failure,
    host::{
        driver::{self, DriverFacts, NativeFit, NativeUnfit, Obstacle},
        hooks::{self, XdpHook},
        interfaces::Interface,
    },
};

/// Where a program is to run on an interface, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The mode to attach in.
    pub hook: XdpHook,
    /// Whether generic mode is taken where the driver refuses.
    fallback: bool,
    /// Whether the driver is known to take the program.
    pub certain: bool,
    /// Why native mode may fail.
    pub unfit: Option<NativeUnfit>,
    /// What native mode changes about the interface.
    pub effects: Vec<String>,
    /// The receive offload of which the kernel warns when a program is attached in generic mode.
    warned_of: Option<&'static str>,
    /// Whether the kernel panics then.
    panics: bool,
}

impl Plan {
    /// What `mode` means on an interface like this.
    pub fn new(mode: hooks::XdpMode, interface: &str, facts: &DriverFacts) -> Self {
        let (unfit, certain, effects) = match driver::choose(interface, facts) {
            Ok(NativeFit { certain, effects }) => (None, certain, effects),
            Err(unfit) => (Some(unfit), true, Vec::new()),
        };
        let hook = match mode {
            hooks::XdpMode::Native => XdpHook::Native,
            hooks::XdpMode::Auto if unfit.is_none() => XdpHook::Native,
            hooks::XdpMode::Auto | hooks::XdpMode::Generic => XdpHook::Generic,
        };

        Self {
            hook,
            fallback: mode == hooks::XdpMode::Auto,
            certain,
            unfit,
            effects,
            warned_of: driver::generic_warning(facts),
            panics: facts.host.panics_on_warnings,
        }
    }

    /// What the kernel is going to write about generic mode, where it does.
    ///
    /// # Errors
    /// When it would panic: exit code 69.
    pub fn generic_warning(&self, interface: &str) -> Result<Option<String>, Failure> {
        let Some(feature) = self.warned_of else {
            return Ok(None);
        };
        if self.panics {
            return Err(Failure::unavailable(format!(
                "{interface}: in generic mode the kernel warns of {feature}, which cannot be turned \
                 off there, and with kernel.panic_on_warn it would panic"
            ))
            .remedy("`sysctl kernel.panic_on_warn=0` while the guard starts"));
        }

        Ok(Some(format!(
            "the kernel writes a warning to its log, as {feature} cannot be turned off there; it does \
             no harm"
        )))
    }

    /// Whether a program that an earlier run has left in this mode may stay in it.
    fn suits(&self, left: XdpHook) -> bool {
        left == self.hook || (self.fallback && !self.certain)
    }

    /// What the administrator should know of the mode, where there is a reason for it.
    pub fn note(&self, interface: &str, mode: hooks::XdpMode) -> Option<String> {
        let unfit = self.unfit.as_ref()?;
        match (mode, unfit.obstacle) {
            (hooks::XdpMode::Auto, Obstacle::Worse) => {
                Some(format!("{interface}: XDP runs in generic mode: {unfit}"))
            }
            (hooks::XdpMode::Auto, _) => Some(format!(
                "{interface}: XDP runs in generic mode, which is slower: {unfit}"
            )),
            (hooks::XdpMode::Native, Obstacle::Unsafe) => Some(format!(
                "{interface}: native mode, as asked for, but {}; leave --xdp-mode at auto",
                unfit.why
            )),
            (hooks::XdpMode::Native | hooks::XdpMode::Generic, _) => None,
        }
    }
}

/// Puts the XDP program on an interface as `plan` says: in place of the one that is pinned at one
/// of `left`, without a gap, or anew. Pins it at `pin`. Returns why it is not native where the
/// driver has refused it.
///
/// # Errors
/// When the interface is taken, or neither mode works: exit code 69.
pub fn xdp(
    program: &mut Xdp,
    interface: &Interface,
    plan: &Plan,
    (pin, left): (&Path, &[PathBuf]),
) -> Result<(Attached, Option<String>), Failure> {
    let name = &interface.name;
    let suits = xdp_hook(interface).map_or(true, |hook| plan.suits(hook));
    for left in left {
        if suits && adopt(program, left) {
            if left != pin {
                // In one step: a link that is pinned nowhere is gone with this process.
                fs::rename(left, pin)
                    .with_context(|| format!("{}: cannot be moved", left.display()))?;
            }
            return Ok((Attached::Pinned(pin.to_owned()), None));
        }
        // It is of an interface that is gone, or in another mode: the kernel has one at a time.
        release_pin(left)?;
    }

    let index = interface.index;
    let attempt = |program: &mut Xdp, mode| program.attach_to_if_index(index, mode);
    let generic = |program: &mut Xdp| {
        if let Some(warning) = plan.generic_warning(name)? {
            tracing::info!("{name}: generic mode: {warning}");
        }
        Ok::<_, Failure>(attempt(program, XdpMode::Skb))
    };
    let (link, fallback) = match plan.hook {
        XdpHook::Generic => (generic(program)?, None),
        XdpHook::Native => {
            for effect in &plan.effects {
                tracing::info!("{name}: native mode: {effect}");
            }
            match attempt(program, XdpMode::Driver) {
                Err(error) if plan.fallback && native_refused(&error) => {
                    let reason = format!(
                        "{name}: XDP runs in generic mode, which is slower: the driver takes no \
                         XDP program: {}",
                        cause(&error)
                    );
                    (generic(program)?, Some(reason))
                }
                result => (result, None),
            }
        }
    };
    let native_only = plan.hook == XdpHook::Native && !plan.fallback;
    let unfit = plan.unfit.as_ref().filter(|_| native_only);
    let link = link.map_err(|error| refused_xdp(name, native_only, unfit, &error))?;
    let link = program
        .take_link(link)
        .context("keep the XDP link")
        .map_err(Failure::from)?;

    let hold = match FdLink::try_from(link) {
        Ok(link) => {
            link.pin(pin)
                .with_context(|| format!("{}: cannot be pinned", pin.display()))?;
            Attached::Pinned(pin.to_owned())
        }
        Err(_) => {
            return Err(Failure::unavailable(format!(
                "{name}: the kernel has no links for XDP programs"
            ))
            .remedy("run Linux 5.10 or later"));
        }
    };

    Ok((hold, fallback))
}

/// The mode that rtnetlink shows.
///
/// # Errors
/// When it shows none.
pub fn xdp_hook(interface: &Interface) -> anyhow::Result<XdpHook> {
    let program = interface
        .xdp
        .first()
        .with_context(|| format!("{}: the XDP program is gone", interface.name))?;

    Ok(program.hook.unwrap_or(XdpHook::Native))
}

/// Replaces the program of the link that is pinned at `left`, if there is one.
fn adopt(program: &mut Xdp, left: &Path) -> bool {
    PinnedLink::from_pin(left)
        .ok()
        .and_then(|pinned| XdpLink::try_from(FdLink::from(pinned)).ok())
        .and_then(|link| program.attach_to_link(link).ok())
        .and_then(|link| program.take_link(link).ok())
        .is_some()
}

#[cfg(test)]
mod tests {
    use aya::util::KernelVersion;

    use super::*;
    use crate::{base::failure::Exit, host::driver::Host};

    fn plan(fixed_hw_gro: bool, panics_on_warnings: bool) -> Plan {
        let facts = DriverFacts {
            kind: None,
            driver: Some("virtio_net".to_owned()),
            mtu: 1500,
            max_mtu: None,
            support: None,
            lro: false,
            hw_gro: true,
            fixed_lro: false,
            fixed_hw_gro,
            channels: None,
            virtual_functions: 0,
            virtio: None,
            ports: Vec::new(),
            host: Host {
                kernel: KernelVersion::new(6, 12, 0),
                frags: true,
                page: 4096,
                processors: 2,
                panics_on_warnings,
            },
        };

        Plan::new(hooks::XdpMode::Generic, "eth0", &facts)
    }

    #[test]
    fn no_program_is_attached_where_the_kernel_would_panic() {
        let said = |plan: &Plan| plan.generic_warning("eth0");
        for panics in [false, true] {
            assert_eq!(said(&plan(false, panics)).expect("may be attached"), None);
        }
        let warning = said(&plan(true, false)).expect("may be attached");
        assert!(warning.is_some_and(|text| text.contains("HW-GRO")));
        let failure = said(&plan(true, true)).expect_err("must not be attached");
        assert_eq!(failure.code, Exit::Unavailable);
        assert!(
            failure.to_string().contains("kernel.panic_on_warn"),
            "{failure}"
        );
    }
}
