//! The file that sets the range at a boot, and says what was in force before.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::bail;

use super::ports::{list, written};
use crate::{
    base::failure::{Exit, Failure},
    host::range::{LocalPorts, parse_range, parse_reserved},
};

pub const RANGE_KEY: &str = "net.ipv4.ip_local_port_range";
pub const RESERVED_KEY: &str = "net.ipv4.ip_local_reserved_ports";
/// Stands before a line of the file that says what was in force before.
const FORMER: &str = "# former ";

/// The text of the file.
pub fn contents(former: &LocalPorts, next: &LocalPorts) -> String {
    format!(
        "# Written by `portguard harden`. `portguard harden --revert` puts the former values back \
         and removes this file.\n\
         {FORMER}{RANGE_KEY} = {}\n\
         {FORMER}{RESERVED_KEY} = {}\n\
         {RANGE_KEY} = {}\n\
         {RESERVED_KEY} = {}\n",
        written(former.range),
        list(&former.reserved),
        written(next.range),
        list(&next.reserved)
    )
}

/// What the text of the file says was in force before.
pub fn former(text: &str) -> anyhow::Result<LocalPorts> {
    ports_in(text.lines().filter_map(|line| line.strip_prefix(FORMER)))
}

/// What the text of the file sets.
pub fn in_file(text: &str) -> anyhow::Result<LocalPorts> {
    ports_in(text.lines().filter(|line| !line.starts_with('#')))
}

fn ports_in<'a>(lines: impl Iterator<Item = &'a str>) -> anyhow::Result<LocalPorts> {
    let (mut range, mut reserved) = (None, None);
    for line in lines {
        match line.split_once('=').map(|(key, value)| (key.trim(), value)) {
            Some((RANGE_KEY, value)) => range = Some(parse_range(value)?),
            Some((RESERVED_KEY, value)) => reserved = Some(parse_reserved(value)?),
            _ => {}
        }
    }
    let (Some(range), Some(reserved)) = (range, reserved) else {
        bail!("{RANGE_KEY} or {RESERVED_KEY} is missing");
    };

    Ok(LocalPorts { range, reserved })
}

pub fn unknown(file: &Path) -> String {
    format!(
        "{}: is not as portguard has written it; remove it once the sysctls are as they should be",
        file.display()
    )
}

/// The text of a file, or `None` where it is missing.
pub fn read(file: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused(file, "read", error)),
    }
}

/// What became of the file.
pub enum SavedSettings {
    New,
    /// There was one with this text.
    Replaced(String),
    ReadOnly(std::io::Error),
}

impl SavedSettings {
    /// Leaves the file as it was before, because the settings could not be put in force.
    pub fn undo(self, file: &Path) {
        let undone = match self {
            Self::New => fs::remove_file(file),
            Self::Replaced(text) => replace(file, &text),
            Self::ReadOnly(_) => Ok(()),
        };
        if let Err(error) = undone {
            tracing::warn!(
                "{}: cannot be put back as it was ({error}); remove it before the next boot",
                file.display()
            );
        }
    }
}

pub fn keep(file: &Path, text: &str) -> Result<SavedSettings, Failure> {
    let before = read(file)?;
    match replace(file, text) {
        Ok(()) => Ok(before.map_or(SavedSettings::New, SavedSettings::Replaced)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound
            ) =>
        {
            Ok(SavedSettings::ReadOnly(error))
        }
        Err(error) => Err(refused(file, "written", error)),
    }
}

/// Writes a file in one step, so that a boot reads the old or the new one.
pub fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    // Ends otherwise than what sysctl.d(5) reads.
    name.push(".new");
    let aside = PathBuf::from(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&aside)
        .and_then(|mut new| {
            new.write_all(text.as_bytes())?;
            new.sync_all()
        })
        .and_then(|()| fs::rename(&aside, file));
    if written.is_err() {
        // It is not there where it could not be created.
        let _ = fs::remove_file(&aside);
    }

    written
}

pub fn refused(path: &Path, what: &str, error: std::io::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::PermissionDenied => Exit::NotPermitted,
        _ => Exit::Runtime,
    };
    let error = anyhow::Error::new(error).context(format!("{}: cannot be {what}", path.display()));
    let failure = Failure::new(code, error);
    match code {
        Exit::NotPermitted => failure.remedy("run as root"),
        _ => failure,
    }
}
