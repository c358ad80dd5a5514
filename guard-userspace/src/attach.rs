//! Putting programs on an interface, and taking them off.
//!
//! Links are pinned as soon as they exist, so that the guard outlives the daemon. A clsact filter
//! is no link: it outlives the daemon by itself, and is found again by its priority and handle.

mod filter;

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::Context;
use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
        },
        xdp::XdpLink,
    },
    sys::SyscallError,
};

pub use self::filter::has_filter;
use crate::{
    bpf,
    failure::Failure,
    observation::{EgressHook, XdpHook},
    settings,
};

/// Later than any filter that somebody else is likely to add: what rewrites packets must have
/// done so before they are recorded.
const CLSACT_PRIORITY: u16 = 0xfff0;

/// Our filter at that priority.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

/// A program on an interface, and how to take it off again.
#[derive(Debug)]
pub enum Hold {
    /// A link that is pinned here.
    Pinned(PathBuf),
    /// A clsact filter on the interface of this name.
    Clsact(String),
}

impl Hold {
    /// Takes the program off at once. Nothing happens where it is off already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn release(self) -> anyhow::Result<()> {
        match self {
            Self::Pinned(path) => release_pin(&path),
            Self::Clsact(interface) => release_clsact(&interface),
        }
    }
}

/// Takes off whatever is pinned at `path`.
///
/// # Errors
/// When the kernel refuses.
pub fn release_pin(path: &Path) -> anyhow::Result<()> {
    if let Ok(link) = bpf::open_pin(path) {
        bpf::detach_link(link.as_fd())
            .with_context(|| format!("{}: cannot be detached", path.display()))?;
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{}: cannot be unpinned", path.display())),
    }
}

/// Takes our clsact filter off an interface, if it is there.
///
/// # Errors
/// When the kernel refuses.
pub fn release_clsact(interface: &str) -> anyhow::Result<()> {
    match SchedClassifierLink::attached(
        interface,
        TcAttachType::Egress,
        CLSACT_PRIORITY,
        CLSACT_HANDLE,
        None,
    ) {
        // Dropping it detaches it, and is silent where there is no such filter.
        Ok(filter) => drop(filter),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
        Err(error) => return Err(error).with_context(|| format!("{interface}: clsact filter")),
    }

    Ok(())
}

/// Whether the link pinned at `path` still holds a program on the interface with this index. A
/// link outlives its interface, and says so.
pub fn holds(path: &Path, interface: u32) -> bool {
    bpf::open_pin(path)
        .and_then(|link| bpf::link_interface(link.as_fd()))
        .is_ok_and(|index| index == interface)
}

/// The program that the link pinned at `path` holds, if there is such a link.
pub fn pinned_program(path: &Path) -> Option<u32> {
    let link = FdLink::from(PinnedLink::from_pin(path).ok()?);

    Some(link.info().ok()?.program_id())
}

/// Puts the XDP program on an interface: in place of the one that is pinned at `pin`, without a
/// gap, or anew. Returns why it is not native where it could not be.
///
/// # Errors
/// When the interface is taken, or neither mode works: exit code 69.
pub fn xdp(
    program: &mut Xdp,
    (name, index): (&str, u32),
    mode: settings::XdpMode,
    pin: &Path,
) -> Result<(Hold, Option<String>), Failure> {
    if adopt_xdp(program, pin) {
        return Ok((Hold::Pinned(pin.to_owned()), None));
    }

    let attempt = |program: &mut Xdp, mode| program.attach_to_if_index(index, mode);
    let (link, fallback) = match mode {
        settings::XdpMode::Native => (attempt(program, XdpMode::Driver), None),
        settings::XdpMode::Generic => (attempt(program, XdpMode::Skb), None),
        settings::XdpMode::Auto => match attempt(program, XdpMode::Driver) {
            Err(error) if native_refused(&error) => {
                let reason = format!("{name}: the driver takes no XDP program: {}", cause(&error));
                (attempt(program, XdpMode::Skb), Some(reason))
            }
            result => (result, None),
        },
    };
    let link = link.map_err(|error| refused_xdp(name, mode, &error))?;
    let link = program
        .take_link(link)
        .context("keep the XDP link")
        .map_err(Failure::from)?;

    let hold = match FdLink::try_from(link) {
        Ok(link) => {
            link.pin(pin)
                .with_context(|| format!("{}: cannot be pinned", pin.display()))?;
            Hold::Pinned(pin.to_owned())
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

/// Puts the program that records what is sent on an interface, as [`xdp`] does. Returns why it is
/// not TCX where it could not be.
///
/// # Errors
/// When neither hook works: exit code 69.
pub fn egress(
    program: &mut SchedClassifier,
    name: &str,
    hook: settings::EgressHook,
    pin: &Path,
) -> Result<(Hold, EgressHook, Option<String>), Failure> {
    if hook == settings::EgressHook::Clsact {
        // A link from an earlier run would record everything twice.
        release_pin(pin)?;
        return clsact(program, name).map(|hold| (hold, EgressHook::Clsact, None));
    }
    if adopt_egress(program, pin) {
        release_clsact(name)?;
        return Ok((Hold::Pinned(pin.to_owned()), EgressHook::Tcx, None));
    }

    match tcx(program, name, pin) {
        Ok(hold) => {
            release_clsact(name)?;
            Ok((hold, EgressHook::Tcx, None))
        }
        Err(error) if hook == settings::EgressHook::Auto => {
            let reason = format!("{name}: the kernel has no TCX: {}", cause(&error));
            clsact(program, name).map(|hold| (hold, EgressHook::Clsact, Some(reason)))
        }
        Err(error) => Err(Failure::unavailable(format!(
            "{name}: the kernel has no TCX: {}",
            cause(&error)
        ))
        .remedy("run Linux 6.6 or later, or leave --egress-hook at auto")),
    }
}

fn adopt_xdp(program: &mut Xdp, pin: &Path) -> bool {
    let adopted = PinnedLink::from_pin(pin)
        .ok()
        .and_then(|pinned| XdpLink::try_from(FdLink::from(pinned)).ok())
        .and_then(|link| program.attach_to_link(link).ok())
        // The pin holds the link; this process does not need to.
        .and_then(|link| program.take_link(link).ok())
        .is_some();
    if !adopted {
        // What cannot be adopted is of an interface that is gone.
        let _ = release_pin(pin);
    }

    adopted
}

fn adopt_egress(program: &mut SchedClassifier, pin: &Path) -> bool {
    let adopted = PinnedLink::from_pin(pin)
        .ok()
        .and_then(|pinned| SchedClassifierLink::try_from(FdLink::from(pinned)).ok())
        .and_then(|link| program.attach_to_link(link).ok())
        .and_then(|link| program.take_link(link).ok())
        .is_some();
    if !adopted {
        let _ = release_pin(pin);
    }

    adopted
}

fn tcx(program: &mut SchedClassifier, name: &str, pin: &Path) -> Result<Hold, ProgramError> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let link = program.attach_with_options(name, TcAttachType::Egress, options)?;
    let link = FdLink::try_from(program.take_link(link)?)
        .map_err(|error| ProgramError::IOError(io::Error::other(error)))?;
    link.pin(pin)
        .map_err(|error| ProgramError::IOError(io::Error::other(error)))?;

    Ok(Hold::Pinned(pin.to_owned()))
}

fn clsact(program: &mut SchedClassifier, name: &str) -> Result<Hold, Failure> {
    match qdisc_add_clsact(name) {
        Ok(()) => {}
        Err(error) if errno_tc(&error) == Some(libc::EEXIST) => {}
        Err(error) => return Err(refused_clsact(name, &error.into())),
    }

    let options = TcAttachOptions::Netlink(NlOptions {
        priority: CLSACT_PRIORITY,
        handle: CLSACT_HANDLE,
        classid: None,
    });
    let link = match program.attach_with_options(name, TcAttachType::Egress, options) {
        Ok(link) => link,
        // Left by an earlier run: replaced in one step.
        Err(error) if errno(&error) == Some(libc::EEXIST) => {
            let left = SchedClassifierLink::attached(
                name,
                TcAttachType::Egress,
                CLSACT_PRIORITY,
                CLSACT_HANDLE,
                None,
            )
            .with_context(|| format!("{name}: clsact filter"))?;
            program
                .attach_to_link(left)
                .map_err(|error| refused_clsact(name, &error))?
        }
        Err(error) => return Err(refused_clsact(name, &error)),
    };
    let link = program
        .take_link(link)
        .context("keep the clsact filter")
        .map_err(Failure::from)?;
    // The filter is to outlive this process; `Hold` takes it off by name when the time comes.
    std::mem::forget(link);

    Ok(Hold::Clsact(name.to_owned()))
}

/// The mode that rtnetlink shows.
///
/// # Errors
/// When it shows none.
pub fn xdp_hook(interface: &crate::interfaces::Interface) -> anyhow::Result<XdpHook> {
    use crate::interfaces::AttachedMode;

    let program = interface
        .xdp
        .first()
        .with_context(|| format!("{}: the XDP program is gone", interface.name))?;

    Ok(match program.mode {
        AttachedMode::Native | AttachedMode::Offload => XdpHook::Native,
        AttachedMode::Generic => XdpHook::Generic,
    })
}

/// Whether the driver, not the caller, is the reason that native mode fails.
fn native_refused(error: &ProgramError) -> bool {
    /// `ENOTSUPP`, include/linux/errno.h: no number of user space's, but drivers return it.
    const ENOTSUPP: i32 = 524;
    matches!(
        errno(error),
        // ERANGE is what veth says to a jumbo MTU.
        Some(libc::EOPNOTSUPP | ENOTSUPP | libc::ERANGE | libc::EINVAL | libc::ENOMEM)
    )
}

fn refused_xdp(name: &str, mode: settings::XdpMode, error: &ProgramError) -> Failure {
    let failure = Failure::unavailable(format!(
        "{name}: cannot attach the XDP program: {}",
        cause(error)
    ));
    match errno(error) {
        Some(libc::EBUSY | libc::EEXIST) => {
            failure.remedy("another XDP program holds the interface and is left untouched")
        }
        Some(libc::EPERM | libc::EACCES) => {
            Failure::not_permitted(format!("{name}: not permitted to attach the XDP program"))
                .remedy("run as root, or grant CAP_NET_ADMIN")
        }
        _ if mode == settings::XdpMode::Native => {
            failure.remedy("leave --xdp-mode at auto for a driver without XDP")
        }
        _ => failure,
    }
}

fn refused_clsact(name: &str, error: &ProgramError) -> Failure {
    Failure::unavailable(format!(
        "{name}: cannot record what is sent: {}",
        cause(error)
    ))
    .remedy("load the kernel modules sch_ingress and cls_bpf")
}

/// The system's own words for why.
fn cause(error: &ProgramError) -> String {
    match errno(error) {
        Some(errno) => io::Error::from_raw_os_error(errno).to_string(),
        None => format!("{:#}", anyhow::Error::msg(error.to_string())),
    }
}

/// The error number of the system call that failed, where one did.
pub(crate) fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::TcError(error) => errno_tc(error),
        ProgramError::XdpError(aya::programs::xdp::XdpError::NetlinkError(error)) => {
            error.raw_os_error()
        }
        _ => None,
    }
}

fn errno_tc(error: &TcError) -> Option<i32> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
}
