//! Folders of a test's own.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::{Builder, TempDir};

/// What the names of all folders begin with, wherever they are. What follows is random: a process
/// id comes again, and would find the folder of a test that was killed before it could remove it.
const PREFIX: &str = "portguard-test-";

/// A folder for files, which disappears with everything in it.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes the folder.
    pub fn new() -> Result<Self> {
        Ok(Self(folder_in(&std::env::temp_dir())?))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where a file of this name is, or may be put.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file, and returns where it is.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, contents).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// A folder in another place, that everybody may read, as programs of other users do.
pub fn folder_in(place: &Path) -> Result<TempDir> {
    Builder::new()
        .prefix(PREFIX)
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in(place)
        .with_context(|| format!("make a folder in {}", place.display()))
}
