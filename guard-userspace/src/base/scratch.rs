//! Whether a file can be made in a folder, found out without leaving anything there.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    process,
};

/// Makes a file without a name in `folder`, or in the nearest folder above it that is there. It is gone
/// when it is closed. `None` where the file system has only files with names, and a folder can be made
/// there.
///
/// # Errors
/// Those of making a file or a folder there.
pub fn file_in(folder: &Path) -> io::Result<Option<File>> {
    let there = folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("."));
    let made = OpenOptions::new()
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(there);
    match made {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let other = there.join(format!(".portguard-{}", process::id()));
            DirBuilder::new().mode(0o700).create(&other)?;
            fs::remove_dir(&other)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn nothing_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        for place in [folder.to_owned(), folder.join("missing/below")] {
            if let Some(mut file) = file_in(&place).expect("can be made") {
                writeln!(file, "1").expect("can be written");
            }
        }
        let left = fs::read_dir(folder).expect("is there").count();
        assert_eq!(left, 0);
        let file = folder.join("file");
        fs::write(&file, "").expect("can be written");
        let refused = file_in(&file.join("below")).expect_err("is below a file");
        assert_eq!(refused.kind(), io::ErrorKind::NotADirectory);
    }

    /// Where no file can be made at all.
    #[test]
    fn what_the_kernel_shows_takes_no_files() {
        file_in(Path::new("/proc/missing/below")).expect_err("is no place for files");
    }
}
