//! What the kernel says about XDP on an interface, over generic netlink.

use std::io;

use netlink_sys::protocols::NETLINK_GENERIC;

use crate::host::{
    features::Feature,
    netlink::{
        Questions,
        message::{self, attribute, behind, each, question},
    },
};

/// The controller of generic netlink: `GENL_ID_CTRL`, include/uapi/linux/genetlink.h.
const CONTROLLER: u16 = 16;
/// Length of `struct genlmsghdr`: a command, a version and nothing.
const HEADER: usize = 4;
/// All families that are asked are of this version.
const VERSION: u8 = 1;
/// `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`.
const FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`.
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET`, include/uapi/linux/netdev.h.
const GET_DEVICE: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`.
const DEVICE_INDEX: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`.
const DEVICE_XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`: the driver runs XDP programs.
const RUNS_XDP: u64 = 1;
/// `NETDEV_XDP_ACT_RX_SG`: it gives them frames in several pieces.
const GIVES_FRAGS: u64 = 1 << 5;

/// What a driver does for XDP programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Support {
    /// Whether it runs them.
    pub native: bool,
    /// Whether it gives them frames in several pieces.
    pub frags: bool,
}

/// What the driver of an interface does for XDP programs, where the kernel tells.
pub fn support(index: u32) -> Option<Support> {
    if !Feature::DriverXdp.may_be_used() {
        return None;
    }
    let mut questions = Questions::open(NETLINK_GENERIC).ok()?;
    let name = attribute(FAMILY_NAME, b"netdev\0");
    let family = ask(&mut questions, (CONTROLLER, GET_FAMILY), &name, FAMILY_ID)?;
    let family = message::u16(&family).ok()?;
    let index = attribute(DEVICE_INDEX, &index.to_ne_bytes());
    let features = ask(
        &mut questions,
        (family, GET_DEVICE),
        &index,
        DEVICE_XDP_FEATURES,
    )?;
    let features = message::u64(&features).ok()?;

    Some(Support {
        native: features & RUNS_XDP != 0,
        frags: features & GIVES_FRAGS != 0,
    })
}

/// The value of one attribute of what a family answers to a command.
fn ask(
    questions: &mut Questions,
    (family, command): (u16, u8),
    attributes: &[u8],
    wanted: u16,
) -> Option<Vec<u8>> {
    let payload = [&[command, VERSION, 0, 0], attributes].concat();
    let read = |_, payload: &[u8]| {
        let mut found = None;
        each(
            behind(payload, HEADER).map_err(io::Error::other)?,
            |kind, value| {
                if kind == wanted {
                    found = Some(value.to_vec());
                }
                Ok(())
            },
        )
        .map_err(io::Error::other)?;
        Ok(found)
    };

    questions
        .ask(&question(family, &payload), read)
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_runs_no_xdp_and_no_interface_says_nothing() {
        assert_eq!(support(u32::MAX), None);
        assert!(!support(1).is_some_and(|support| support.native));
    }
}
