//! One guard a network namespace.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
};

use nix::fcntl::{Flock, FlockArg};

use crate::base::{
    failure::{Exit, Failure},
    scratch,
};

/// Where locks are.
const FOLDER: &str = "/run/portguard";

/// The right to guard a network namespace, held until it is dropped.
///
/// Who has it removes the file at the end. So that no two processes lock two files of the same
/// name, a lock counts only while its file still has that name.
#[derive(Debug)]
pub struct InstanceLock {
    path: PathBuf,
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
        let path = folder.join(format!("{namespace}.lock"));
        let mut file = loop {
            let file = lock(&path)?;
            if named(&file, &path) {
                break file;
            }
        };
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", process::id()))
            .map_err(|error| refused(&path, "written", error))?;

        Ok(Self { path, _file: file })
    }

    /// Whether there is a place for the lock of `namespace`, which nobody holds. Leaves nothing.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn try_out(namespace: &str) -> Result<(), Failure> {
        let folder = Path::new(FOLDER);
        let path = folder.join(format!("{namespace}.lock"));
        match open(OpenOptions::new().read(true).write(true), &path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(refused(&path, "opened", error));
            }
            Ok(_) | Err(_) => {}
        }
        let file = scratch::file_in(folder).map_err(|error| {
            if folder.exists() {
                refused(&path, "opened", error)
            } else {
                refused(folder, "created", error)
            }
        })?;
        let Some(mut file) = file else {
            return Ok(());
        };

        writeln!(file, "{}", process::id()).map_err(|error| refused(&path, "written", error))
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

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // What stays means nothing, and is in the way of nothing.
        let _ = fs::remove_file(&self.path);
    }
}

fn lock(path: &Path) -> Result<Flock<File>, Failure> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let file = open(&mut options, path).map_err(|error| refused(path, "opened", error))?;

    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(file),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            let holder = fs::read_to_string(path).unwrap_or_default();
            Err(InstanceLock::taken(holder.trim().parse().ok()))
        }
        Err((_, error)) => Err(Failure::runtime(format!(
            "{}: cannot be locked: {error}",
            path.display()
        ))),
    }
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Whether a file that was opened at `path` is the one that is there now.
fn named(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let opened = file.metadata().map(identity).ok();

    opened.is_some() && opened == fs::metadata(path).map(identity).ok()
}

fn refused(path: &Path, verb: &str, error: io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => Exit::NotPermitted,
        _ => Exit::Runtime,
    };
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there",
        io::ErrorKind::ReadOnlyFilesystem => "mount it for writing",
        _ => "run as root, or make it writable for this user",
    };
    let error = anyhow::Error::new(error).context(format!("{}: cannot be {verb}", path.display()));

    Failure::new(code, error).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("locks");
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
        fs::remove_dir(&folder).expect("is ours, and empty");
    }

    #[test]
    fn a_file_that_was_removed_locks_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("locks");
        let first = InstanceLock::take_in(&folder, "a").expect("is free");
        let opened = File::open(&first.path).expect("is there");
        assert!(named(&opened, &first.path));
        let path = first.path.clone();
        drop(first);
        assert!(!named(&opened, &path));
        let _second = InstanceLock::take_in(&folder, "a").expect("is free again");
        assert!(!named(&opened, &path));
        fs::remove_dir_all(&folder).expect("is ours");
    }
}
