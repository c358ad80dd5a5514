//! The BPF file system.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::scratch;

/// Where it is mounted.
const MOUNTED: &str = "/sys/fs/bpf";

/// A folder of this test's own, which disappears with everything pinned in it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a folder, and mounts the file system where nobody has.
    pub fn new() -> Result<Self> {
        mount()?;
        Ok(Self(scratch::folder_in(Path::new(MOUNTED))?.keep()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The daemon removes its own folder when it ends.
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            eprintln!("{} is left behind: {error}", self.0.display());
        }
    }
}

fn mount() -> Result<()> {
    const BPF_FS_MAGIC: libc::__fsword_t = 0xcafe_4a11;

    // SAFETY: all zero bytes are a valid `statfs`, the path ends in zero, and the structure is
    // only used when the call has filled it.
    let found = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        (libc::statfs(c"/sys/fs/bpf".as_ptr(), &raw mut found) == 0).then_some(found)
    };
    if found.is_some_and(|found| found.f_type == BPF_FS_MAGIC) {
        return Ok(());
    }
    // SAFETY: every string ends in zero, and the file system takes no data.
    let mounted = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            c"/sys/fs/bpf".as_ptr(),
            c"bpf".as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if mounted != 0 {
        return Err(io::Error::last_os_error()).context("mount the BPF file system");
    }
    Ok(())
}
