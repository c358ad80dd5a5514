//! Whether what is pinned in a folder outlives the daemon, and is safe from everybody else.

use std::{
    fs::{self, DirBuilder, Metadata, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use anyhow::Context;
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sys::{
        statfs::{BPF_FS_MAGIC, statfs},
        statvfs::{FsFlags, statvfs},
    },
    unistd::geteuid,
};

use crate::{base::failure::Failure, config::is_plain};

/// Where bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// `S_ISVTX`: who may write into the folder may still not remove what is another's.
const STICKY: u32 = 0o1000;

/// Whether there is a bpffs to pin in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinFolder {
    /// There is.
    Ready,
    /// Nothing is mounted at the usual place yet.
    Unmounted,
}

/// The first process namespace, `PROC_PID_INIT_INO` of include/linux/proc_ns.h.
const FIRST_PIDS: &str = "pid:[4026531836]";

/// `kthreadd` there, which sees the mounts that the host has booted with. Others may be let less near
/// process 1.
const KERNEL_THREAD: &str = "2";

/// Whether a bpffs at `folder`, or one that would be mounted there, is for this mount namespace alone,
/// and so goes with its last process, and all that is pinned in it. Where that cannot be told, it is
/// taken to stay.
pub(super) fn is_private(folder: &Path) -> bool {
    let namespace = |process: &str, kind: &str| {
        let link = fs::read_link(format!("/proc/{process}/ns/{kind}"));
        link.ok().map(|link| link.to_string_lossy().into_owned())
    };
    let on_bpffs = on_bpffs(folder).unwrap_or(false);
    if namespace("self", "pid").as_deref() != Some(FIRST_PIDS) {
        // In a container. What is mounted already may be the host's.
        return !on_bpffs;
    }
    let (own, first) = (namespace("self", "mnt"), namespace(KERNEL_THREAD, "mnt"));
    if own == first || first.is_none() {
        return false;
    }
    let device = |folder: &Path| fs::metadata(folder).map(|metadata| metadata.dev()).ok();
    let below_root = folder.strip_prefix("/").unwrap_or(folder);
    let root = Path::new("/proc").join(KERNEL_THREAD).join("root");

    !on_bpffs || device(folder) != device(&root.join(below_root))
}

/// Looks for the bpffs that `base` is or will be on. Touches nothing.
pub(super) fn inspect(base: &Path) -> Result<PinFolder, Failure> {
    if !is_plain(base) {
        return Err(Failure::usage(format!(
            "{}: no absolute path, or one with `..`",
            base.display()
        ))
        .remedy("give --pin-dir a path such as /sys/fs/bpf/portguard"));
    }

    let existing = base
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    if !on_bpffs(existing)? {
        if base.starts_with(BPFFS) && nothing_mounted(Path::new(BPFFS)) {
            return Ok(PinFolder::Unmounted);
        }
        return Err(Failure::unavailable(format!(
            "{}: not on bpffs, and only there can programs outlive the daemon",
            base.display()
        ))
        .remedy(format!(
            "give --pin-dir a folder below a mounted bpffs, such as {BPFFS}/portguard"
        )));
    }
    let status = statvfs(existing)
        .with_context(|| format!("{}: cannot tell its file system", existing.display()))?;
    if status.flags().contains(FsFlags::ST_RDONLY) {
        return Err(read_only(existing));
    }
    for folder in base.ancestors().skip(1).filter(|folder| folder.exists()) {
        require_fixed(folder)?;
    }

    Ok(PinFolder::Ready)
}

/// Mounts bpffs at its usual place.
pub(super) fn mount_bpffs() -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=0700")).map_err(|errno| {
        let message = format!(
            "{BPFFS}: bpffs is not mounted, and cannot be: {}",
            errno.desc()
        );
        let failure = match errno {
            Errno::EPERM | Errno::EACCES => Failure::not_permitted(message),
            _ => Failure::unavailable(message),
        };
        failure.remedy(format!("have root run `mount -t bpf bpf {BPFFS}`"))
    })
}

/// Creates `folder` with mode 0700, or checks that it is ours alone.
pub(super) fn create(folder: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(folder)
        .map_err(|error| not_created(folder, &error))?;
    let metadata = fs::symlink_metadata(folder)
        .with_context(|| format!("{}: cannot be read", folder.display()))?;
    require_own(folder, &metadata)?;

    fs::set_permissions(folder, Permissions::from_mode(0o700))
        .with_context(|| format!("{}: cannot be closed to others", folder.display()))?;

    Ok(())
}

/// Refuses a folder that is not ours alone. One that is missing is not refused.
pub(super) fn require_private(folder: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(folder) {
        Ok(metadata) => require_own(folder, &metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let message = format!("{}: {error}", folder.display());
            Err(match error.raw_os_error() {
                Some(libc::EPERM) if has_dots(folder) => without_dots(message),
                _ => Failure::not_permitted(message).remedy("run as root"),
            })
        }
        Err(error) => Err(anyhow::Error::from(error)
            .context(format!("{}: cannot be read", folder.display()))
            .into()),
    }
}

fn require_own(folder: &Path, metadata: &Metadata) -> Result<(), Failure> {
    let shown = folder.display();
    if !metadata.is_dir() {
        return Err(
            Failure::unavailable(format!("{shown}: exists and is no folder"))
                .remedy("give --pin-dir another folder"),
        );
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(Failure::not_permitted(format!(
            "{shown}: belongs to the user with id {}, so what is pinned there cannot be trusted",
            metadata.uid()
        ))
        .remedy("remove it, and portguard makes one of its own"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(Failure::not_permitted(format!(
            "{shown}: others can write into it, so what is pinned there cannot be trusted"
        ))
        .remedy("remove it, and portguard makes one of its own"));
    }

    Ok(())
}

/// Refuses a folder in which others could put theirs in the place of ours.
fn require_fixed(folder: &Path) -> Result<(), Failure> {
    let metadata =
        fs::metadata(folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    let fixed = metadata.mode() & 0o022 == 0 || metadata.mode() & STICKY != 0;
    let trusted = metadata.uid() == 0 || metadata.uid() == geteuid().as_raw();
    if fixed && trusted {
        return Ok(());
    }

    Err(Failure::not_permitted(format!(
        "{}: others can put folders of theirs in the place of ours in it",
        folder.display()
    ))
    .remedy("close it to them with chmod and chown, or give --pin-dir another folder"))
}

fn on_bpffs(folder: &Path) -> Result<bool, Failure> {
    let filesystem = statfs(folder)
        .with_context(|| format!("{}: cannot tell its file system", folder.display()))?;

    Ok(filesystem.filesystem_type() == BPF_FS_MAGIC)
}

/// Whether `folder` is there and belongs to the file system around it.
fn nothing_mounted(folder: &Path) -> bool {
    let device = |folder: &Path| fs::metadata(folder).map(|metadata| metadata.dev()).ok();
    let around = folder.parent().and_then(device);

    around.is_some() && device(folder) == around
}

fn read_only(folder: &Path) -> Failure {
    Failure::unavailable(format!("{}: mounted read-only", folder.display()))
        .remedy("mount bpffs for writing, or give --pin-dir another folder")
}

/// bpffs refuses such names, whether they are to be made or looked up.
/// https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/inode.c#L360
fn has_dots(folder: &Path) -> bool {
    folder.to_string_lossy().contains('.')
}

fn without_dots(message: String) -> Failure {
    Failure::unavailable(message).remedy("give --pin-dir a name without dots, bpffs takes none")
}

fn not_created(folder: &Path, error: &io::Error) -> Failure {
    let message = format!("{}: cannot be created: {error}", folder.display());
    match error.raw_os_error() {
        Some(libc::EROFS) => read_only(folder),
        Some(libc::EPERM) if has_dots(folder) => without_dots(message),
        Some(libc::EACCES | libc::EPERM) => Failure::not_permitted(message).remedy("run as root"),
        Some(libc::EEXIST | libc::ENOTDIR) => {
            Failure::unavailable(format!("{}: exists and is no folder", folder.display()))
                .remedy("give --pin-dir another folder")
        }
        _ => Failure::unavailable(message).remedy("give --pin-dir another folder"),
    }
}
