//! One guard a network namespace.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
};

use anyhow::Context;
use nix::fcntl::{Flock, FlockArg};

use crate::failure::{Exit, Failure};

/// Where locks are.
const FOLDER: &str = "/run/portguard";

/// The right to guard a network namespace, held until it is dropped.
///
/// The file stays: removing it would let two processes lock two files of the same name.
#[derive(Debug)]
pub struct InstanceLock {
    _file: Flock<File>,
}

impl InstanceLock {
    /// Takes the lock of the namespace called `namespace`.
    ///
    /// # Errors
    /// When another process holds it, which is named: exit code 69.
    pub fn take(namespace: &str) -> Result<Self, Failure> {
        Self::take_in(Path::new(FOLDER), namespace)
    }

    fn take_in(folder: &Path, namespace: &str) -> Result<Self, Failure> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .map_err(|error| refused(folder, "created", error))?;
        let path: PathBuf = folder.join(format!("{namespace}.lock"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| refused(&path, "opened", error))?;

        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                return Err(Self::taken(holder.trim().parse().ok()));
            }
            Err((_, error)) => {
                return Err(Failure::runtime(format!(
                    "{}: cannot be locked: {error}",
                    path.display()
                )));
            }
        };
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", process::id()))
            .with_context(|| format!("{}: cannot be written", path.display()))?;

        Ok(Self { _file: file })
    }

    /// What a run ends with while `holder` has the lock.
    pub fn taken(holder: Option<u32>) -> Failure {
        let holder =
            holder.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"));

        Failure::unavailable(format!(
            "this network namespace is guarded by {holder} already"
        ))
        .remedy("give it the further interfaces, or stop it first")
    }

    /// The process that holds the lock of `namespace`, if one does.
    pub fn holder(namespace: &str) -> Option<u32> {
        let mut file = File::open(Path::new(FOLDER).join(format!("{namespace}.lock"))).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(_) => None,
            Err(_) => text.trim().parse().ok(),
        }
    }
}

fn refused(path: &Path, verb: &str, error: io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NotPermitted,
        _ => Exit::Runtime,
    };
    let error = anyhow::Error::new(error).context(format!("{}: cannot be {verb}", path.display()));

    Failure::new(code, error).remedy("run as root, or make it writable for this user")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let folder = std::env::temp_dir().join(format!("portguard-lock-{}", process::id()));
        let first = InstanceLock::take_in(&folder, "a").expect("is free");
        let second = InstanceLock::take_in(&folder, "a").expect_err("is taken");
        assert!(
            second
                .to_string()
                .contains(&format!("pid {}", process::id())),
            "{second}"
        );
        InstanceLock::take_in(&folder, "b").expect("is another namespace");
        drop(first);
        InstanceLock::take_in(&folder, "a").expect("is free again");
        fs::remove_dir_all(&folder).expect("is ours");
    }
}
