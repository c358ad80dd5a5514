//! Debian's kernel packages, extracted and never installed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::mirror::Mirror;
use crate::process::{self, announce};
use crate::version::Version;
use crate::workspace;

/// An extracted kernel.
pub struct Kernel {
    /// What `uname -r` prints on it.
    pub release: String,
    pub image: PathBuf,
    /// The folder that stands for `/` when its modules are looked up.
    pub root: PathBuf,
    /// Where everything about this version is kept.
    pub folder: PathBuf,
}

/// The kernel of this version, fetched unless it was before.
pub fn kernel(version: Version) -> Result<Kernel> {
    let folder = workspace::target()
        .join("kernels")
        .join(version.to_string());
    let root = folder.join("root");
    // Renamed into place when complete, so its presence says that it is whole.
    if !root.is_dir() {
        fetch(version, &folder, &root)?;
    }

    let release = only_entry(&root.join("lib/modules"))?;
    let image = root.join(format!("boot/vmlinuz-{release}"));
    Ok(Kernel {
        release,
        image,
        root,
        folder,
    })
}

/// The releases in which Debian carries this kernel.
fn suites(version: Version) -> &'static [&'static str] {
    match (version.major, version.minor) {
        (..=5, _) => &["bullseye", "bullseye-security"],
        (6, 0..=12) => &["bookworm", "bookworm-security", "bookworm-backports"],
        _ => &["trixie", "trixie-security", "trixie-backports"],
    }
}

fn fetch(version: Version, folder: &Path, root: &Path) -> Result<()> {
    let apt = Apt::new(folder, suites(version))?;
    announce(&format!(
        "Linux {version}: looking for it in {}",
        suites(version).join(", ")
    ));
    // One suite that is gone is no obstacle as long as another has the kernel.
    let updated = process::run(apt.command("apt-get").args(["update", "--quiet"]));

    let prefix = format!("linux-image-{version}.");
    let names = process::output(apt.command("apt-cache").args(["pkgnames", &prefix]))?;
    let Some(package) = newest(names.lines()) else {
        updated?;
        bail!(
            "Debian has no kernel {version} for this machine in {}; it has others, such as 5.10, \
             6.1 and 6.12",
            suites(version).join(", "),
        );
    };

    announce(&format!(
        "Linux {version}: fetching {package}, to be extracted only"
    ));
    let unfinished = folder.join("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    process::run(
        apt.command("apt-get")
            .args(["download", "--quiet", package])
            .current_dir(&unfinished),
    )?;
    let archive = unfinished.join(only_entry(&unfinished)?);
    let extracted = unfinished.join("root");
    process::run(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&archive)
            .arg(&extracted),
    )?;

    let release = only_entry(&extracted.join("lib/modules"))?;
    process::run(
        Command::new(sbin("depmod"))
            .arg("-b")
            .arg(&extracted)
            .arg(&release),
    )?;
    fs::rename(&extracted, root)
        .and_then(|()| fs::remove_dir_all(&unfinished))
        .with_context(|| format!("{} could not be finished", root.display()))
}

/// The newest of the kernels for ordinary machines among `names`.
fn newest<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .filter(|name| is_ordinary(name))
        .max_by_key(|name| numbers(name))
}

fn is_ordinary(name: &str) -> bool {
    let flavour = format!("-{}", debian_architecture());
    let other = ["-cloud-", "-rt-", "-unsigned", "-dbg", "+bpo-rt"];
    name.ends_with(&flavour) && !other.iter().any(|part| name.contains(part))
}

/// Every number in `name`, so that 5.10.0-10 is newer than 5.10.0-9.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn debian_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The path of a program that is not on everybody's PATH.
pub fn sbin(program: &str) -> PathBuf {
    process::find(program).unwrap_or_else(|| Path::new("/usr/sbin").join(program))
}

fn only_entry(folder: &Path) -> Result<String> {
    let mut entries = fs::read_dir(folder)
        .with_context(|| format!("{} is missing", folder.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let (Some(entry), None) = (entries.next(), entries.next()) else {
        bail!(
            "expected one entry in {}; remove the folder to fetch it again",
            folder.display()
        );
    };
    Ok(entry)
}

/// An apt with sources, lists and a cache of its own, which needs no root and leaves the
/// machine's apt alone.
struct Apt {
    configuration: PathBuf,
}

impl Apt {
    fn new(folder: &Path, suites: &[&str]) -> Result<Self> {
        let folder = folder.join("apt");
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))
                .with_context(|| format!("{} could not be made", folder.display()))?;
        }
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text)
                .with_context(|| format!("{} could not be written", path.display()))?;
            anyhow::Ok(path)
        };
        let sources = write("sources.list", &Mirror::of_this_machine()?.list(suites))?;
        let status = write("status", "")?;

        let settings = [
            ("Dir::Etc::SourceList", sources.as_os_str()),
            ("Dir::Etc::SourceParts", OsStr::new("/dev/null")),
            ("Dir::State::Lists", folder.join("lists").as_os_str()),
            ("Dir::State::Status", status.as_os_str()),
            ("Dir::Cache", folder.join("cache").as_os_str()),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                OsStr::new("false"),
            ),
            ("Acquire::Languages", OsStr::new("none")),
            // An archived suite keeps its signature, but nobody renews its date.
            ("Acquire::Check-Valid-Until", OsStr::new("false")),
            // The folder belongs to the caller, who is not apt's own user.
            ("APT::Sandbox::User", OsStr::new("root")),
        ]
        .map(|(name, value)| format!("{name} \"{}\";\n", value.display()));
        Ok(Self {
            configuration: write("apt.conf", &settings.concat())?,
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(&self.configuration);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_newest_ordinary_kernel_is_taken() {
        let names = [
            "linux-image-5.10.0-9-amd64",
            "linux-image-5.10.0-35-amd64",
            "linux-image-5.10.0-36-cloud-amd64",
            "linux-image-5.10.0-36-rt-amd64",
            "linux-image-5.10.0-36-amd64-dbg",
            "linux-image-5.10.0-36-amd64-unsigned",
        ];
        assert_eq!(
            newest(names.into_iter()),
            Some("linux-image-5.10.0-35-amd64")
        );
        assert_eq!(newest(["linux-image-amd64-dbg"].into_iter()), None);
    }

    #[test]
    fn numbers_in_names_are_compared_as_numbers() {
        assert!(numbers("linux-image-6.12.117+deb12") > numbers("linux-image-6.12.99+deb12"));
    }
}
