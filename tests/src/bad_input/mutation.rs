//! What can be amiss with a process.

use std::{
    ffi::{CStr, CString},
    io,
};

/// A capability, by its number in include/uapi/linux/capability.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Capability {
    /// `CAP_DAC_READ_SEARCH`.
    DacReadSearch = 2,
    /// `CAP_SETPCAP`.
    SetPcap = 8,
    /// `CAP_NET_ADMIN`.
    NetAdmin = 12,
    /// `CAP_SYS_PTRACE`.
    SysPtrace = 19,
    /// `CAP_SYS_ADMIN`.
    SysAdmin = 21,
    /// `CAP_SYS_RESOURCE`.
    SysResource = 24,
    /// `CAP_PERFMON`.
    Perfmon = 38,
    /// `CAP_BPF`.
    Bpf = 39,
}

impl Capability {
    /// Its bit in a set of capabilities.
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Something amiss with a process, or with the files it sees. The test itself is not touched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// It runs as nobody.
    Nobody,
    /// Root lacks these.
    Without(Vec<Capability>),
    /// It and whatever it runs get all there are unasked.
    Ambient,
    /// It may lock only so many bytes of memory.
    Memlock(u64),
    /// It may open so many files.
    Files(u64),
    /// The files that it writes may have so many bytes.
    FileSize(u64),
    /// Nothing is mounted here.
    Unmounted(CString),
    /// This folder, and what is mounted here, cannot be written to.
    ReadOnly(CString),
    /// An empty folder hides this one, and there is room for nothing in it.
    Full(CString),
    /// An empty folder hides this one.
    Hidden(CString),
    /// The first file is found in the place of the second.
    Replaced(CString, CString),
}

impl Mutation {
    /// A file's name, as the variants take it.
    pub fn path(path: impl Into<Vec<u8>>) -> CString {
        CString::new(path).expect("a path holds no zero byte")
    }

    pub(super) fn apply(&self) -> io::Result<()> {
        match self {
            Self::Nobody => become_nobody(),
            Self::Without(capabilities) => capabilities.iter().try_for_each(|capability| {
                // SAFETY: no memory is involved.
                checked(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, *capability as libc::c_ulong) })
            }),
            Self::Ambient => inherit_everything(),
            Self::Memlock(bytes) => limit(libc::RLIMIT_MEMLOCK, *bytes),
            Self::Files(files) => limit(libc::RLIMIT_NOFILE, *files),
            Self::FileSize(bytes) => limit(libc::RLIMIT_FSIZE, *bytes),
            Self::Unmounted(folder) => {
                hide_mounts()?;
                // SAFETY: the path ends in a zero byte and outlives the call.
                checked(unsafe { libc::umount2(folder.as_ptr(), libc::MNT_DETACH) })
            }
            Self::ReadOnly(folder) => {
                hide_mounts()?;
                mount(folder, folder, c"none", libc::MS_BIND)?;
                let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
                mount(c"none", folder, c"none", flags)
            }
            Self::Full(folder) => {
                hide_mounts()?;
                mount_with(c"none", folder, c"tmpfs", 0, c"nr_inodes=1")
            }
            Self::Hidden(folder) => {
                hide_mounts()?;
                mount(c"none", folder, c"tmpfs", 0)
            }
            Self::Replaced(by, file) => {
                hide_mounts()?;
                mount(by, file, c"none", libc::MS_BIND)
            }
        }
    }
}

fn limit(kind: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: the limit outlives the call.
    checked(unsafe { libc::setrlimit(kind, &raw const limit) })
}

fn become_nobody() -> io::Result<()> {
    const NOBODY: libc::uid_t = 65_534;
    // SAFETY: no groups are read, and no memory is involved otherwise.
    unsafe {
        checked(libc::setgroups(0, std::ptr::null()))?;
        checked(libc::setgid(NOBODY))?;
        checked(libc::setuid(NOBODY))
    }
}

/// Makes every capability inheritable and ambient that programs can have.
fn inherit_everything() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`, include/uapi/linux/capability.h: two words for each set.
    const VERSION: u32 = 0x2008_0522;
    /// Effective, permitted and inheritable; the lower words of all, then the upper ones.
    type Sets = [[u32; 3]; 2];

    let header = [VERSION, 0];
    let mut sets: Sets = [[0; 3]; 2];
    // SAFETY: the kernel reads the header and writes as much as its version says.
    let read = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    checked(read as libc::c_int)?;
    // SAFETY: no memory is involved; it is an error to ask for what the kernel does not know.
    let bounded = |bit: libc::c_ulong| unsafe { libc::prctl(libc::PR_CAPBSET_READ, bit) } == 1;
    let bits = (0..libc::c_ulong::from(u64::BITS)).filter(|bit| bounded(*bit));
    for bit in bits.clone() {
        let [_, permitted, inheritable] = &mut sets[bit as usize / 32];
        *inheritable |= *permitted & 1 << (bit % 32);
    }
    // SAFETY: the kernel reads both, and as much as the header's version says.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    checked(set as libc::c_int)?;
    for bit in bits.filter(|bit| sets[*bit as usize / 32][2] & 1 << (bit % 32) != 0) {
        let raise = libc::PR_CAP_AMBIENT_RAISE;
        // SAFETY: no memory is involved.
        checked(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, bit, 0, 0) })?;
    }
    Ok(())
}

/// Moves the process into a mount namespace of its own, whose mounts nobody else sees.
fn hide_mounts() -> io::Result<()> {
    // SAFETY: no memory is involved.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;

    mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE)
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    mount_with(source, target, kind, flags, c"")
}

fn mount_with(
    source: &CStr,
    target: &CStr,
    kind: &CStr,
    flags: libc::c_ulong,
    data: &CStr,
) -> io::Result<()> {
    // SAFETY: every string ends in a zero byte and outlives the call.
    checked(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    })
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
