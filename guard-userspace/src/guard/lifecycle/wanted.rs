//! The interfaces that the settings name.

use crate::{
    base::failure::Failure,
    bpf::attach::{Plan, XdpHook},
    config::{Settings, XdpMode},
    host::{
        driver::DriverFacts,
        features::Feature,
        interfaces::{self, Interface},
    },
};

/// An interface of the settings.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What the settings call it: its name, or another that it goes by.
    pub asked: String,
    /// Whether unsolicited packets are to be dropped there, or what is sent is only recorded.
    pub guarded: bool,
    /// The interface, if it is there.
    pub interface: Option<Interface>,
    /// Whether its XDP program is to read frames in several pieces, as in native mode it has to.
    /// In generic mode the kernel makes one piece of a frame for a program that does not, and a
    /// copy for one that does, of which programs of traffic control on ingress get to see no Ethernet
    /// header: `skb_pp_cow_data`, net/core/skbuff.c, does not copy `mac_len`.
    pub frags: bool,
}

impl Wanted {
    /// What it is called, as far as that is known.
    pub fn name(&self) -> &str {
        self.interface
            .as_ref()
            .map_or(&self.asked, |interface| &interface.name)
    }
}

/// Finds the interfaces of the settings among `all` that there are. One that is not there may come
/// later.
///
/// # Errors
/// When one cannot be guarded (exit code 69), or goes by two names of the settings (78).
pub fn find_wanted(settings: &Settings, all: &[Interface]) -> Result<Vec<Wanted>, Failure> {
    let guarded = settings.iface.iter().map(|name| (name, true));
    let recorded = settings.egress_iface.iter().map(|name| (name, false));
    let mut found: Vec<Wanted> = Vec::new();
    for (asked, guarded) in guarded.chain(recorded) {
        let interface = interfaces::named(all, asked).cloned();
        if let Some(interface) = &interface {
            interface.require_guardable()?;
            let same = |other: &&Wanted| {
                let other = other.interface.as_ref();
                other.is_some_and(|other| other.index == interface.index)
            };
            if let Some(other) = found.iter().find(same) {
                return Err(Failure::bad_configuration(format!(
                    "{} and {asked} are one interface, {}",
                    other.asked, interface.name
                ))
                .remedy("name each interface once"));
            }
        }
        let hook = match &interface {
            Some(interface) => {
                let facts = DriverFacts::observe(interface, all);
                Plan::new(settings.xdp_mode, &interface.name, &facts).hook
            }
            None if settings.xdp_mode == XdpMode::Generic => XdpHook::Generic,
            None => XdpHook::Native,
        };
        found.push(Wanted {
            asked: asked.clone(),
            guarded,
            interface,
            frags: hook == XdpHook::Native && Feature::XdpFrags.is_expected(),
        });
    }

    Ok(found)
}
