//! What the kernel says about XDP on an interface, over generic netlink (since Linux 6.3).
//! <https://github.com/torvalds/linux/commit/d3d854fd6a1d>

use netlink_packet_core::NlasIterator;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};

/// The controller of generic netlink: `GENL_ID_CTRL`, include/uapi/linux/genetlink.h.
const CONTROLLER: u16 = 16;
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
    let netlink = Socket::new(NETLINK_GENERIC).ok()?;
    netlink.connect(&SocketAddr::new(0, 0)).ok()?;
    let family = ask(&netlink, CONTROLLER, GET_FAMILY, FAMILY_NAME, b"netdev\0")?;
    let family = u16::from_ne_bytes(*attribute(&family, FAMILY_ID)?.first_chunk()?);
    let device = ask(
        &netlink,
        family,
        GET_DEVICE,
        DEVICE_INDEX,
        &index.to_ne_bytes(),
    )?;
    let features = attribute(&device, DEVICE_XDP_FEATURES)?;
    let features = u64::from_ne_bytes(*features.first_chunk()?);

    Some(Support {
        native: features & RUNS_XDP != 0,
        frags: features & GIVES_FRAGS != 0,
    })
}

/// The attributes of the answer to a request with one attribute.
fn ask(netlink: &Socket, family: u16, command: u8, kind: u16, value: &[u8]) -> Option<Vec<u8>> {
    /// Of `struct nlmsghdr` and `struct genlmsghdr` together.
    const HEADERS: usize = 20;

    let attribute = 4 + value.len();
    let length = HEADERS + attribute.next_multiple_of(4);
    let mut request = Vec::with_capacity(length);
    request.extend((length as u32).to_ne_bytes());
    request.extend(family.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    request.extend([0; 8]);
    request.extend([command, 1, 0, 0]);
    request.extend((attribute as u16).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(length, 0);
    netlink.send(&request, 0).ok()?;

    let mut answer = vec![0; 16 * 1024];
    let length = netlink.recv(&mut &mut *answer, 0).ok()?;
    // An error is of another type.
    let answers = answer.get(4..6)? == family.to_ne_bytes();

    answers.then(|| answer.get(HEADERS..length).unwrap_or_default().to_vec())
}

fn attribute(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == kind)
        .map(|attribute| attribute.value().to_vec())
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
