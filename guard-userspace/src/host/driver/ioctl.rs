//! Questions about an interface by ioctl(2) and its name.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Asks about `interface`, with `argument` beside its name, and returns what the kernel has made of
/// both.
///
/// # Errors
/// When the kernel refuses.
///
/// # Safety
///
/// `argument` must be what `command` reads. An address in it must lead to the structure that belongs
/// to the command, with as much room as that says.
pub unsafe fn ask(
    interface: &str,
    command: libc::Ioctl,
    argument: libc::__c_anonymous_ifr_ifru,
) -> io::Result<libc::ifreq> {
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
    ifreq.ifr_ifru = argument;
    // SAFETY: the command reads and writes an `ifreq`, which this is, and what the caller vouches for.
    if unsafe { libc::ioctl(socket.as_raw_fd(), command, &raw mut ifreq) } != 0 {
        return Err(io::Error::last_os_error());
    }

    Ok(ifreq)
}
