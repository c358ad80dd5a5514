//! What the memory cgroups of this process leave it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What can be taken before the kernel kills a process in a cgroup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Room {
    /// Bytes.
    pub free: u64,
    /// The limit, in bytes.
    pub limit: u64,
    /// The folder of the cgroup.
    pub group: PathBuf,
}

/// The least room in this process's own memory cgroup and those above it, as far as they are visible
/// here. Nothing where none is limited.
pub(super) fn room() -> Option<Room> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();

    least(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

fn least(cgroups: &str, mounts: &str) -> Option<Room> {
    let groups = mounts
        .lines()
        .filter_map(Hierarchy::mounted)
        .filter_map(|hierarchy| Some((hierarchy.path(cgroups)?, hierarchy)));

    groups
        .flat_map(|(group, hierarchy)| {
            let above: Vec<_> = group
                .ancestors()
                .take_while(|folder| folder.starts_with(&hierarchy.mount))
                .filter_map(|folder| hierarchy.version.room(folder))
                .collect();
            above
        })
        .min_by_key(|room| room.free)
}

/// The interface of a hierarchy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

/// A hierarchy of cgroups that counts memory.
#[derive(Debug)]
struct Hierarchy {
    version: Version,
    /// Which cgroup is seen at the place where it is mounted.
    root: PathBuf,
    mount: PathBuf,
}

impl Hierarchy {
    /// Reads a line of mountinfo, proc_pid_mountinfo(5).
    fn mounted(line: &str) -> Option<Self> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, mount) = (mount.next()?, mount.next()?);
        let mut filesystem = filesystem.split(' ');
        let version = match filesystem.next()? {
            "cgroup2" => Version::Two,
            "cgroup" if filesystem.nth(1)?.split(',').any(|name| name == "memory") => Version::One,
            _ => return None,
        };

        Some(Self {
            version,
            root: root.into(),
            mount: mount.into(),
        })
    }

    /// The folder of the cgroup that `cgroups`, the text of proc_pid_cgroup(5), names.
    fn path(&self, cgroups: &str) -> Option<PathBuf> {
        let path = cgroups.lines().find_map(|line| {
            let (number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let ours = match self.version {
                Version::One => controllers.split(',').any(|name| name == "memory"),
                Version::Two => number == "0" && controllers.is_empty(),
            };
            ours.then_some(Path::new(path))
        })?;

        Some(match path.strip_prefix(&self.root) {
            Ok(below) => self.mount.join(below),
            // Another cgroup namespace's: what is mounted is all that is known.
            Err(_) => self.mount.clone(),
        })
    }
}

impl Version {
    /// What is left in the cgroup of this folder, if it has a limit.
    fn room(self, folder: &Path) -> Option<Room> {
        let (limit, usage, reclaimable) = match self {
            Self::One => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                &["total_inactive_file", "total_active_file"][..],
            ),
            Self::Two => (
                "memory.max",
                "memory.current",
                &["inactive_file", "active_file", "slab_reclaimable"][..],
            ),
        };
        // Version 2 says "max" where there is none, version 1 a number that no host has.
        let limit = number(&folder.join(limit)).filter(|limit| *limit < 1 << 60)?;
        let usage = number(&folder.join(usage))?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let reclaimable: u64 = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| reclaimable.contains(name))
            .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
            .sum();

        Some(Room {
            free: limit.saturating_sub(usage.saturating_sub(reclaimable)),
            limit,
            group: folder.to_owned(),
        })
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).expect("a folder");
        for (name, text) in files {
            fs::write(folder.join(name), text).expect("a file");
        }
    }

    #[test]
    fn the_tightest_of_all_groups_counts() {
        let temporary = tempfile::tempdir().expect("a folder");
        let one = temporary.path().join("memory");
        let two = temporary.path().join("unified");
        let limit = "memory.limit_in_bytes";
        let usage = "memory.usage_in_bytes";
        write(&one, &[(limit, "9223372036854771712\n"), (usage, "5000\n")]);
        write(
            &one.join("a"),
            &[
                (limit, "1000\n"),
                (usage, "900\n"),
                (
                    "memory.stat",
                    "cache 700\ntotal_inactive_file 300\ntotal_active_file 50\n",
                ),
            ],
        );
        write(&one.join("a/b"), &[(limit, "2000"), (usage, "100")]);
        write(
            &two.join("x"),
            &[("memory.max", "700"), ("memory.current", "300")],
        );
        write(
            &two.join("x/y"),
            &[("memory.max", "max"), ("memory.current", "10")],
        );

        let (one, two) = (one.display(), two.display());
        let first = format!("30 24 0:26 / {one} rw shared:9 - cgroup cgroup rw,memory\n");
        let second = format!("31 24 0:27 / {two} rw - cgroup2 cgroup2 rw\n");
        let other = format!("32 24 0:28 / {one} rw - cgroup cgroup rw,cpu,cpuacct\n");
        let inside = format!("30 24 0:26 /docker/z/x {two}/x rw - cgroup2 cgroup2 rw\n");
        // cgroups, mounts, what is free, and where
        let table = [
            (
                "5:cpu:/a\n4:memory:/a/b\n0::/\n",
                format!("{other}{first}"),
                Some((450, "memory/a")),
            ),
            ("4:cpu,memory:/\n", first.clone(), None),
            (
                "4:memory:/a/b\n0::/x/y\n",
                format!("{first}{second}"),
                Some((400, "unified/x")),
            ),
            ("0::/x\n", second.clone(), Some((400, "unified/x"))),
            ("0::/none\n", second.clone(), None),
            ("0::/docker/z/x\n", inside.clone(), Some((400, "unified/x"))),
            ("0::/../elsewhere\n", inside, Some((400, "unified/x"))),
            ("4:memory:/a\n", second, None),
            ("", first, None),
            ("0::/x\n", String::new(), None),
        ];
        for (cgroups, mounts, expected) in table {
            let found = least(cgroups, &mounts);
            let expected = expected.map(|(free, group)| (free, temporary.path().join(group)));
            assert_eq!(
                found.map(|room| (room.free, room.group)),
                expected,
                "{cgroups} {mounts}"
            );
        }
    }
}
