//! What an interface's driver says about itself.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use netlink_packet_core::NlasIterator;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `SIOCETHTOOL`, include/uapi/linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_GDRVINFO`, include/uapi/linux/ethtool.h.
const GET_DRIVER: u32 = 3;
/// `ETHTOOL_GCHANNELS`.
const GET_CHANNELS: u32 = 0x3c;

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

/// The name of the driver behind the interface called `interface`.
pub(super) fn name(interface: &str) -> Option<String> {
    #[repr(C)]
    struct Driver {
        command: u32,
        name: [u8; 32],
        rest: [u8; 160],
    }

    let mut driver = Driver {
        command: GET_DRIVER,
        name: [0; 32],
        rest: [0; 160],
    };
    ethtool(interface, &mut driver).ok()?;
    let name = CStr::from_bytes_until_nul(&driver.name)
        .ok()?
        .to_str()
        .ok()?;

    (!name.is_empty()).then(|| name.to_owned())
}

/// How many queues receive on the interface called `interface`.
pub(super) fn receive_queues(interface: &str) -> Option<u32> {
    #[repr(C)]
    struct Channels {
        command: u32,
        most: [u32; 4],
        receive: u32,
        transmit: u32,
        other: u32,
        combined: u32,
    }

    let mut channels = Channels {
        command: GET_CHANNELS,
        most: [0; 4],
        receive: 0,
        transmit: 0,
        other: 0,
        combined: 0,
    };
    ethtool(interface, &mut channels).ok()?;

    Some(channels.receive + channels.combined).filter(|queues| *queues > 0)
}

/// Whether the driver of an interface runs XDP programs, where the kernel tells (since 6.3).
/// <https://github.com/torvalds/linux/commit/d3d854fd6a1d>
pub(super) fn runs_xdp(index: u32) -> Option<bool> {
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

    Some(u64::from_ne_bytes(*features.first_chunk()?) & RUNS_XDP != 0)
}

fn ethtool<T>(interface: &str, request: &mut T) -> io::Result<()> {
    let socket: OwnedFd = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: zeroes are a valid `ifreq`.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = ifreq.ifr_name.len() - 1;
    for (to, from) in ifreq.ifr_name.iter_mut().zip(interface.bytes().take(room)) {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = (&raw mut *request).cast();
    // SAFETY: the kernel reads the command that starts `request`, and writes no more than the
    // structure that belongs to it, which `request` is.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut ifreq) } != 0 {
        return Err(io::Error::last_os_error());
    }

    Ok(())
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
    fn loopback_has_no_driver_and_no_interface_has_none() {
        assert_eq!(name("no-such-if"), None);
        assert_eq!(receive_queues("no-such-if"), None);
        assert_eq!(runs_xdp(u32::MAX), None);
        assert_ne!(runs_xdp(1), Some(true), "loopback runs no XDP");
    }
}
