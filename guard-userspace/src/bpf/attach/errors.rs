//! Why the kernel refuses to attach, in words that help.

use std::io;

use aya::{
    programs::{ProgramError, tc::TcError, xdp::XdpError},
    sys::SyscallError,
};

use crate::{base::failure::Failure, host::driver::NativeUnfit};

/// Whether the driver, not the caller, is the reason that native mode fails.
pub(super) fn native_refused(error: &ProgramError) -> bool {
    /// `ENOTSUPP`, include/linux/errno.h: no number of user space's, but drivers return it.
    const ENOTSUPP: i32 = 524;
    matches!(
        errno(error),
        // ERANGE is what veth says to a jumbo MTU.
        Some(libc::EOPNOTSUPP | ENOTSUPP | libc::ERANGE | libc::EINVAL | libc::ENOMEM)
    )
}

/// `native_only` says that generic mode was not to be taken instead, and `unfit` what was known to
/// speak against native mode.
pub(super) fn refused_xdp(
    name: &str,
    native_only: bool,
    unfit: Option<&NativeUnfit>,
    error: &ProgramError,
) -> Failure {
    let why = unfit.map_or_else(|| cause(error), |unfit| unfit.why.clone());
    let failure = Failure::unavailable(format!("{name}: cannot attach the XDP program: {why}"));
    match errno(error) {
        Some(libc::EBUSY | libc::EEXIST) => {
            failure.remedy("another XDP program holds the interface and is left untouched")
        }
        Some(libc::EPERM | libc::EACCES) => {
            Failure::not_permitted(format!("{name}: not permitted to attach the XDP program"))
                .remedy("run as root, or grant CAP_NET_ADMIN")
        }
        _ if native_only => failure.remedy(native_remedy(unfit)),
        _ => failure,
    }
}

/// What helps where native mode was asked for and cannot be.
pub fn native_remedy(unfit: Option<&NativeUnfit>) -> String {
    let auto = "leave --xdp-mode at auto, which takes generic mode then";
    match unfit.and_then(|unfit| unfit.remedy.as_ref()) {
        Some(remedy) => format!("{remedy}, or {auto}"),
        None => auto.to_owned(),
    }
}

pub(super) fn refused_clsact(name: &str, error: &ProgramError) -> Failure {
    Failure::unavailable(format!(
        "{name}: cannot record what is sent: {}",
        cause(error)
    ))
    .remedy("load the kernel modules sch_ingress and cls_bpf")
}

/// The system's own words for why.
pub(super) fn cause(error: &ProgramError) -> String {
    match errno(error) {
        Some(errno) => io::Error::from_raw_os_error(errno).to_string(),
        None => format!("{:#}", anyhow::Error::msg(error.to_string())),
    }
}

/// The error number of the system call that failed, where one did.
pub(super) fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::TcError(error) => errno_tc(error),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    }
}

pub(super) fn errno_tc(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}
