//! Where maps and links are pinned, so that they outlive the daemon.
//!
//! `PIN_DIR/<network namespace>/v<layout>/`: maps by name, links as `<ifindex>-xdp`,
//! `<ifindex>-egress` and, while others stand behind that, `<ifindex>-egress-last`.

mod folders;
mod place;

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use guard_common::abi::layout::LAYOUT_VERSION;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use self::folders::{free_aside, is_layout, is_namespace, layout};
pub use self::place::PinFolder;
use crate::{base::failure::Failure, bpf::syscalls};

// The build script lists the maps of the object as `MAPS`.
include!(concat!(env!("OUT_DIR"), "/maps.rs"));

/// The one list of links: variant, what its pin is called after the interface, and which program it
/// holds.
macro_rules! links {
    ($($(#[doc = $doc:literal])+ $variant:ident, $suffix:literal, $label:literal;)+) => {
        /// Which hook a link holds.
        ///
        /// In the order in which links are taken off: XDP must never stand without egress.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Hook {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Hook {
            /// All of them, in that order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            fn suffix(self) -> &'static str {
                match self {
                    $(Self::$variant => $suffix,)+
                }
            }

            /// The program, as users read it.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}

links! {
    /// XDP.
    Xdp, "xdp", "XDP";
    /// TCX egress, of a link that was about to take another's place when the run was killed. The
    /// other is still in force.
    Moving, "egress-moving", "egress";
    /// TCX egress, of the copy that runs last.
    EgressLast, "egress-last", "egress";
    /// TCX egress.
    Egress, "egress", "egress";
}

impl Hook {
    /// Those that hold a program which sees what is sent.
    pub fn of_egress() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(|hook| *hook != Self::Xdp)
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
        Self::of_layout(base, namespace, LAYOUT_VERSION)
    }

    /// As [`new`](Self::new), for maps of this layout.
    pub fn of_layout(base: &Path, namespace: &str, layout: u32) -> Self {
        let namespace = base.join(namespace);

        Self {
            base: base.to_owned(),
            folder: namespace.join(format!("v{layout}")),
            namespace,
        }
    }

    /// The folders of this network namespace that exist below `base`: one for each layout that
    /// some build has pinned there, and those that were set aside.
    pub fn all(base: &Path, namespace: &str) -> Vec<Self> {
        let namespace = base.join(namespace);
        let Ok(entries) = fs::read_dir(&namespace) else {
            return Vec::new();
        };
        let mut folders: Vec<_> = entries
            .filter_map(Result::ok)
            .filter(|entry| is_layout(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect();
        folders.sort();

        folders
            .into_iter()
            .map(|folder| Self {
                base: base.to_owned(),
                namespace: namespace.clone(),
                folder,
            })
            .collect()
    }

    /// The other folders of this network namespace.
    pub fn others(&self) -> Vec<Self> {
        let mut folders = Self::all(&self.base, &name(&self.namespace));
        folders.retain(|other| other.folder != self.folder);

        folders
    }

    /// Creates the folders that are missing, and checks that nobody else can write into any.
    ///
    /// Mounts bpffs at its usual place where nothing is mounted there.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect), and when a folder cannot be created.
    pub fn prepare(&self) -> Result<(), Failure> {
        match place::inspect(&self.base)? {
            PinFolder::Ready => {}
            PinFolder::Unmounted => place::mount_bpffs()?,
        }
        for folder in self.folders() {
            place::create(folder)?;
        }

        Ok(())
    }

    /// What there is to know where the folder is in a bpffs for this mount namespace alone.
    pub fn passing(&self) -> Option<String> {
        let existing = self.base.ancestors().find(|folder| folder.exists())?;

        place::is_private(existing).then(|| {
            format!(
                "{}: in a bpffs for this mount namespace alone, as in a container or under `ip netns \
                 exec`: the guard goes with its last process; have the host's mounted there, or enter \
                 network namespaces with `nsenter --net`",
                self.base.display()
            )
        })
    }

    /// Says whether [`prepare`](Self::prepare) can work, as far as that can be told without
    /// touching anything.
    ///
    /// # Errors
    /// When the folder is not on bpffs (exit code 69), belongs to somebody else (77), or is named
    /// by way of another (2).
    pub fn inspect(&self) -> Result<PinFolder, Failure> {
        let place = place::inspect(&self.base)?;
        for folder in self.folders() {
            place::require_private(folder)?;
        }

        Ok(place)
    }

    /// Holds the folder of this network namespace until the value is dropped, against daemons that
    /// see another `/run`, and so another lock, such as one in a container beside this one.
    ///
    /// # Errors
    /// When somebody holds it: exit code 69.
    pub fn hold(&self) -> Result<Flock<File>, Failure> {
        const ATTEMPTS: usize = 3;

        for _ in 0..ATTEMPTS {
            let held = self.lock()?;
            if is_at(&held, &self.namespace) {
                return Ok(held);
            }
            // Another guard took it for one that nobody uses any more.
            self.prepare()?;
        }

        Err(Failure::runtime(format!(
            "{}: removed by another program again and again",
            self.namespace.display()
        )))
    }

    fn lock(&self) -> Result<Flock<File>, Failure> {
        let path = self.namespace.display();
        let folder =
            File::open(&self.namespace).with_context(|| format!("{path}: cannot be opened"))?;

        Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
            Errno::EWOULDBLOCK => Failure::unavailable(format!(
                "{path}: held by a daemon that shares this folder, but not /run"
            ))
            .remedy("stop it first, wherever it runs"),
            error => Failure::runtime(format!("{path}: cannot be locked: {error}")),
        })
    }

    /// Removes what guards of other network namespaces have left below the same folder and nothing
    /// uses any more: no daemon holds it, and no link in it holds an interface, as when the namespace
    /// is gone. Returns the folders.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn remove_abandoned(&self) -> anyhow::Result<Vec<PathBuf>> {
        let own = name(&self.namespace);
        let mut removed = Vec::new();
        for namespace in namespaces(&self.base).filter(|namespace| *namespace != own) {
            let Some((_held, layouts)) = abandoned(&self.base, &namespace) else {
                continue;
            };
            for pins in layouts {
                pins.remove_all()?;
            }
            removed.push(self.base.join(namespace));
        }

        Ok(removed)
    }

    /// The folders that [`remove_abandoned`](Self::remove_abandoned) would remove.
    pub fn abandoned(&self) -> Vec<PathBuf> {
        let own = name(&self.namespace);

        namespaces(&self.base)
            .filter(|namespace| *namespace != own && abandoned(&self.base, namespace).is_some())
            .map(|namespace| self.base.join(namespace))
            .collect()
    }

    /// Maps that are not pinned here.
    pub fn missing_maps(&self) -> Vec<&'static str> {
        MAPS.into_iter()
            .filter(|name| !self.map(name).exists())
            .collect()
    }

    /// Whether `held` is the lock of the folder that is there now.
    pub fn is_held_by(&self, held: &Flock<File>) -> bool {
        is_at(held, &self.namespace)
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the folder is called.
    pub fn name(&self) -> String {
        name(&self.folder)
    }

    /// Whether what is pinned in both is laid out alike.
    pub fn share_layout(&self, other: &Self) -> bool {
        layout(&self.name()) == layout(&other.name())
    }

    /// Moves everything aside, so that new maps can be pinned here, and returns where it is now.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_aside(&self) -> Result<Self, Failure> {
        let aside = Self {
            base: self.base.clone(),
            namespace: self.namespace.clone(),
            folder: free_aside(&self.namespace, &self.name()),
        };
        self.rename_to(&aside)?;
        place::create(&self.folder)?;

        Ok(aside)
    }

    /// Moves everything to where `other` would be, which must be empty or missing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rename_to(&self, other: &Self) -> anyhow::Result<()> {
        let _ = fs::remove_dir(&other.folder);

        fs::rename(&self.folder, &other.folder)
            .with_context(|| format!("{}: cannot be moved", self.folder.display()))
    }

    /// Where the map called `name` is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the link of an interface is pinned.
    pub fn link(&self, interface: u32, hook: Hook) -> PathBuf {
        self.folder.join(format!("{interface}-{}", hook.suffix()))
    }

    /// Every pinned link of this namespace: interface, hook and path, in the order in which they are
    /// taken off.
    pub fn links(&self) -> Vec<(u32, Hook, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let mut links: Vec<_> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (interface, suffix) = name.split_once('-')?;
                let hook = *Hook::ALL.iter().find(|hook| hook.suffix() == suffix)?;
                Some((interface.parse().ok()?, hook, entry.path()))
            })
            .collect();
        links.sort_by_key(|&(interface, hook, _)| (hook, interface));

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

    /// Unpins everything in the folder, whatever its name, and removes the folders that are empty
    /// then. Links must be released before.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove_all(&self) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.folder)
            .with_context(|| format!("{}: cannot be read", self.folder.display()))?
        {
            let path = entry?.path();
            fs::remove_file(&path)
                .with_context(|| format!("{}: cannot be unpinned", path.display()))?;
        }

        self.remove_maps()
    }

    /// From the outermost in.
    fn folders(&self) -> [&Path; 3] {
        [&self.base, &self.namespace, &self.folder]
    }
}

/// What the folders of network namespaces below `base` are called.
fn namespaces(base: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(base)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_namespace(name))
}

/// What is pinned for a network namespace, and the right to remove it, if nothing of it is in use.
fn abandoned(base: &Path, namespace: &str) -> Option<(Flock<File>, Vec<Pins>)> {
    let layouts = Pins::all(base, namespace);
    if !layouts.iter().any(Pins::exist) {
        return None;
    }
    let any = layouts.first()?;
    place::require_private(&any.namespace).ok()?;
    let held = any.lock().ok()?;
    let idle = layouts.iter().flat_map(Pins::links).all(|(_, _, path)| {
        syscalls::open_pin(&path)
            .and_then(|link| syscalls::linked(link.as_fd()))
            .is_ok_and(|linked| linked.interface == 0)
    });

    (idle && is_at(&held, &any.namespace)).then_some((held, layouts))
}

/// Whether a file that was opened at `path` is the one that is there now.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let opened = file.metadata().map(identity).ok();

    opened.is_some() && opened == fs::metadata(path).map(identity).ok()
}

fn name(folder: &Path) -> String {
    folder
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
