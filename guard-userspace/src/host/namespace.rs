//! The network namespace this process is in, by a name that no other has.

use std::{fs, io, os::fd::AsRawFd, os::unix::fs::MetadataExt};

use anyhow::Context;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::host::features::Feature;

/// The calling thread's network namespace, which need not be that of its process.
const OWN: &str = "/proc/thread-self/ns/net";

/// A name of the calling thread's network namespace: its cookie, which is never used twice, or
/// where the kernel has none (before 5.14) its inode, which is not while the namespace lives.
///
/// # Errors
/// When the kernel refuses a socket, or hides /proc.
pub fn name() -> anyhow::Result<String> {
    match cookie() {
        Ok(cookie) => Ok(format!("netns-{cookie}")),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            let inode = fs::metadata(OWN)
                .with_context(|| format!("{OWN}: cannot be read; show the process its own /proc"))?
                .ino();
            Ok(format!("netns-inode-{inode}"))
        }
        Err(error) => Err(error).context("ask for the cookie of the network namespace"),
    }
}

fn cookie() -> io::Result<u64> {
    if !Feature::NamespaceCookie.may_be_used() {
        return Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT));
    }
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is written into `cookie`, of which `length` is the size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }

    Ok(cookie)
}
