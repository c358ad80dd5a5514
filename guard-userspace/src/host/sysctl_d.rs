//! What the files of sysctl.d(5) will set at the next boot.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The folders, the first of which wins where two hold a file of the same name: systemd's
/// `CONF_PATHS("sysctl.d")`, and Debian's older place.
const FOLDERS: [&str; 5] = [
    "etc/sysctl.d",
    "run/sysctl.d",
    "usr/local/lib/sysctl.d",
    "usr/lib/sysctl.d",
    "lib/sysctl.d",
];

/// What `sysctl --system` of procps reads after all of them. systemd reads it only where a link in
/// one of the folders leads to it, as on Debian 12 and before.
const LAST: &str = "etc/sysctl.conf";

/// The longest file that is read, in bytes: settings are far shorter.
const LONGEST: u64 = 1024 * 1024;

/// One setting, and the file it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The value as it is written, without white space around it.
    pub value: String,
    /// The file.
    pub file: PathBuf,
    /// The line, from 1 on.
    pub line: usize,
}

/// The files of sysctl.d(5), in the order in which a boot applies them.
#[derive(Clone, Debug, Default)]
pub struct BootSettings {
    files: Vec<(PathBuf, String)>,
}

impl BootSettings {
    /// Reads the files of the system whose root folder is `root`.
    ///
    /// # Errors
    /// When a folder or a file is there and cannot be read; names it.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let mut named = BTreeMap::new();
        for folder in FOLDERS {
            let folder = root.join(folder);
            for path in configurations(&folder)
                .with_context(|| format!("{}: cannot be listed", folder.display()))?
            {
                if let Some(name) = path.file_name() {
                    named.entry(name.to_owned()).or_insert(path);
                }
            }
        }

        let mut files = Vec::new();
        for path in named.into_values().chain([root.join(LAST)]) {
            match read(&path) {
                Ok(text) => files.push((path, text)),
                // A link to nowhere or to /dev/null takes a file of the distribution out of force.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("{}: cannot be read", path.display()));
                }
            }
        }

        Ok(Self { files })
    }

    /// What the next boot sets `key` to, or `None` where it leaves the kernel's default.
    ///
    /// `key` has dots, as in `net.ipv4.ip_local_port_range`.
    pub fn value(&self, key: &str) -> Option<Setting> {
        let mut found = None;
        for (file, text) in &self.files {
            for (number, line) in text.lines().enumerate() {
                if let Some((name, value)) = assignment(line)
                    && same(name, key)
                {
                    found = Some(Setting {
                        value: value.to_owned(),
                        file: file.clone(),
                        line: number + 1,
                    });
                }
            }
        }

        found
    }
}

/// The files of a folder that count; none where the folder is missing.
fn configurations(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "conf")
        {
            paths.push(path);
        }
    }

    Ok(paths)
}

fn read(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    // A mask is a link to /dev/null.
    if !metadata.is_file() {
        return Ok(String::new());
    }
    if metadata.len() > LONGEST {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("longer than {LONGEST} bytes"),
        ));
    }

    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The key and the value of a line, or `None` for a comment, an empty line and what is no
/// assignment.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (key, value) = line.split_once('=')?;
    // A dash only says that a failure to write is no error.
    let key = key.trim();

    Some((key.strip_prefix('-').unwrap_or(key), value.trim()))
}

/// Whether a key of a file is `key`.
fn same(written: &str, key: &str) -> bool {
    path(written) == path(key)
}

/// A key as a path below /proc/sys. Where the first separator is a dot, dots and slashes change
/// places, so that the name of an interface may hold a dot: sysctl.d(5).
fn path(key: &str) -> String {
    match key.find(['.', '/']) {
        Some(at) if key[at..].starts_with('.') => key
            .chars()
            .map(|character| match character {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "net.ipv4.ip_local_port_range";

    fn system(files: &[(&str, &str)]) -> (tempfile::TempDir, BootSettings) {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            fs::write(path, text).expect("a file");
        }
        let settings = BootSettings::read(root.path()).expect("settings");
        (root, settings)
    }

    #[test]
    fn the_last_file_wins_and_the_first_folder() {
        // name, files, value and line
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<(&'a str, usize)>);
        let table: [Row<'_>; 9] = [
            ("nothing", &[], None),
            (
                "one",
                &[(
                    "etc/sysctl.d/a.conf",
                    "# x\nnet.ipv4.ip_local_port_range = 1 2\n",
                )],
                Some(("1 2", 2)),
            ),
            (
                "slashes, a dash and no spaces",
                &[("etc/sysctl.d/a.conf", "-net/ipv4/ip_local_port_range=1 2")],
                Some(("1 2", 1)),
            ),
            (
                "by name",
                &[
                    ("etc/sysctl.d/10.conf", "net.ipv4.ip_local_port_range=1 2"),
                    (
                        "usr/lib/sysctl.d/90.conf",
                        "net.ipv4.ip_local_port_range=3 4",
                    ),
                ],
                Some(("3 4", 1)),
            ),
            (
                "the same name",
                &[
                    ("etc/sysctl.d/10.conf", "net.ipv4.ip_local_port_range=1 2"),
                    (
                        "usr/lib/sysctl.d/10.conf",
                        "net.ipv4.ip_local_port_range=3 4",
                    ),
                ],
                Some(("1 2", 1)),
            ),
            (
                "sysctl.conf comes last",
                &[
                    ("etc/sysctl.conf", "net.ipv4.ip_local_port_range=5 6"),
                    ("etc/sysctl.d/99.conf", "net.ipv4.ip_local_port_range=1 2"),
                ],
                Some(("5 6", 1)),
            ),
            (
                "another ending",
                &[(
                    "etc/sysctl.d/10.conf.bak",
                    "net.ipv4.ip_local_port_range=1 2",
                )],
                None,
            ),
            (
                "comments",
                &[(
                    "etc/sysctl.d/10.conf",
                    "#net.ipv4.ip_local_port_range=1 2\n;x=1",
                )],
                None,
            ),
            (
                "another key",
                &[(
                    "etc/sysctl.d/10.conf",
                    "net.ipv4.ip_local_port_ranges=1 2\ngarbage",
                )],
                None,
            ),
        ];
        for (name, files, expected) in table {
            let (_root, settings) = system(files);
            let found = settings.value(KEY);
            let found = found
                .as_ref()
                .map(|found| (found.value.as_str(), found.line));
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_masked_file_sets_nothing() {
        let (root, _) = system(&[(
            "usr/lib/sysctl.d/10.conf",
            "net.ipv4.ip_local_port_range=1 2",
        )]);
        let folder = root.path().join("etc/sysctl.d");
        fs::create_dir_all(&folder).expect("a folder");
        std::os::unix::fs::symlink("/dev/null", folder.join("10.conf")).expect("a link");
        let settings = BootSettings::read(root.path()).expect("settings");
        assert_eq!(settings.value(KEY), None);
    }
}
