//! Where maps and links are pinned, so that they outlive the daemon.
//!
//! `PIN_DIR/<network namespace>/v<layout>/`: maps by name, links as `<ifindex>-xdp` and
//! `<ifindex>-egress`.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use guard_common::layout::LAYOUT_VERSION;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

use crate::failure::Failure;

/// Where bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";

/// The maps that outlive the daemon, by their names in the object.
pub const MAPS: [&str; 13] = [
    "flows_tcp4",
    "flows_udp4",
    "flows_tcp6",
    "flows_udp6",
    "occupancy",
    "guarded",
    "config",
    "devices",
    "counters",
    "refused",
    "tallies",
    "local",
    "trusted",
];

/// Which hook a link holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// XDP.
    Xdp,
    /// TCX egress.
    Egress,
}

impl Hook {
    const ALL: [Self; 2] = [Self::Xdp, Self::Egress];

    fn suffix(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Egress => "egress",
        }
    }
}

/// The folder of one network namespace and one layout.
#[derive(Clone, Debug)]
pub struct Pins {
    base: PathBuf,
    namespace: PathBuf,
    folder: PathBuf,
}

impl Pins {
    /// The folder below `base` for the network namespace called `namespace`. Touches nothing.
    pub fn new(base: &Path, namespace: &str) -> Self {
        let namespace = base.join(namespace);

        Self {
            base: base.to_owned(),
            folder: namespace.join(format!("v{LAYOUT_VERSION}")),
            namespace,
        }
    }

    /// Creates the folders that are missing, and checks that nobody else can write into any.
    ///
    /// Mounts bpffs at its usual place where nothing is mounted there.
    ///
    /// # Errors
    /// When the folder is not on bpffs, cannot be created (exit code 69), or belongs to somebody
    /// else (77).
    pub fn prepare(&self) -> Result<(), Failure> {
        self.require_bpffs()?;
        for folder in [&self.base, &self.namespace, &self.folder] {
            create(folder)?;
        }

        Ok(())
    }

    /// Where the map called `name` is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the link of an interface is pinned.
    pub fn link(&self, interface: u32, hook: Hook) -> PathBuf {
        self.folder.join(format!("{interface}-{}", hook.suffix()))
    }

    /// Every pinned link of this namespace: interface, hook and path. XDP comes first, because
    /// it must never stand without egress.
    pub fn links(&self) -> Vec<(u32, Hook, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let mut links: Vec<_> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (interface, suffix) = name.split_once('-')?;
                let hook = Hook::ALL.into_iter().find(|hook| hook.suffix() == suffix)?;
                Some((interface.parse().ok()?, hook, entry.path()))
            })
            .collect();
        links.sort_by_key(|&(interface, hook, _)| (hook == Hook::Egress, interface));

        links
    }

    /// Whether anything is pinned here.
    pub fn exist(&self) -> bool {
        fs::read_dir(&self.folder).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Unpins the maps, and removes the folders that are empty then.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove_maps(&self) -> anyhow::Result<()> {
        for name in MAPS {
            let path = self.map(name);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("{}: cannot be unpinned", path.display()));
                }
            }
        }
        // A folder that holds something else, or is gone already, stays as it is.
        for folder in [&self.folder, &self.namespace, &self.base] {
            let _ = fs::remove_dir(folder);
        }

        Ok(())
    }

    fn require_bpffs(&self) -> Result<(), Failure> {
        let existing = self
            .base
            .ancestors()
            .find(|folder| folder.exists())
            .unwrap_or(Path::new("/"));
        if on_bpffs(existing)? {
            return Ok(());
        }
        if self.base.starts_with(BPFFS) && Path::new(BPFFS).is_dir() {
            mount(
                Some("bpf"),
                BPFFS,
                Some("bpf"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
                Some("mode=0700"),
            )
            .map_err(|error| {
                Failure::unavailable(format!("{BPFFS}: bpffs is not mounted: {error}"))
                    .remedy(format!("run `mount -t bpf bpf {BPFFS}`"))
            })?;
            return Ok(());
        }

        Err(Failure::unavailable(format!(
            "{}: not on bpffs, and only there can programs outlive the daemon",
            self.base.display()
        ))
        .remedy(format!(
            "give --pin-dir a folder below a mounted bpffs, such as {BPFFS}/portguard"
        )))
    }
}

fn on_bpffs(folder: &Path) -> Result<bool, Failure> {
    let filesystem = statfs(folder)
        .with_context(|| format!("{}: cannot tell its file system", folder.display()))?;

    Ok(filesystem.filesystem_type() == BPF_FS_MAGIC)
}

/// Creates `folder` with mode 0700, or checks that it is ours alone.
fn create(folder: &Path) -> Result<(), Failure> {
    match DirBuilder::new().mode(0o700).recursive(true).create(folder) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => {
            return Err(
                Failure::unavailable(format!("{}: {error}", folder.display()))
                    .remedy("mount bpffs for writing, or give --pin-dir another folder"),
            );
        }
        Err(error) => {
            return Err(Failure::unavailable(format!(
                "{}: cannot be created: {error}",
                folder.display()
            )));
        }
    }

    let metadata = fs::symlink_metadata(folder)
        .with_context(|| format!("{}: cannot be read", folder.display()))?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(Failure::not_permitted(format!(
            "{}: others can write into it, so what is pinned there cannot be trusted",
            folder.display()
        ))
        .remedy("remove it, and portguard makes one of its own"));
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))
        .with_context(|| format!("{}: cannot be closed to others", folder.display()))?;

    Ok(())
}
