//! The MTU of an interface, read and set at once.

use std::io;

use anyhow::Context;

use super::ioctl;

/// The MTU of the interface called `name`.
///
/// # Errors
/// When there is none.
pub fn mtu(name: &str) -> anyhow::Result<u32> {
    let ifreq = ask(name, libc::SIOCGIFMTU, 0).with_context(|| format!("{name}: read its MTU"))?;
    // SAFETY: this is what the kernel fills for this command.
    let mtu = unsafe { ifreq.ifr_ifru.ifru_mtu };

    u32::try_from(mtu).with_context(|| format!("{name}: its MTU is {mtu}"))
}

/// Sets the MTU of the interface called `name`.
///
/// # Errors
/// When the kernel or the driver refuses.
pub fn set_mtu(name: &str, mtu: u32) -> anyhow::Result<()> {
    let wanted = i32::try_from(mtu)?;

    ask(name, libc::SIOCSIFMTU, wanted)
        .map(drop)
        .with_context(|| format!("{name}: set its MTU to {mtu}"))
}

fn ask(name: &str, command: libc::c_ulong, mtu: i32) -> io::Result<libc::ifreq> {
    // With musl, commands are of another type for the call than as constants.
    let command = command as libc::Ioctl;
    // SAFETY: both commands read and write a number.
    unsafe {
        ioctl::ask(
            name,
            command,
            libc::__c_anonymous_ifr_ifru { ifru_mtu: mtu },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_an_mtu_and_no_interface_has_none() {
        assert!(mtu("lo").expect("is there") >= 1500);
        assert!(mtu("no-such-if").is_err());
    }
}
