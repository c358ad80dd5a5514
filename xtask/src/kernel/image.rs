//! The initramfs: busybox, our init, the modules, the binary, the suites and what they call.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::fetch::{Kernel, sbin};
use super::{Selection, modules};
use crate::build::Built;
use crate::process;
use crate::suites::{self, Suite};

const INIT: &str = include_str!("init.sh");

/// Programs of the host that the suites call and busybox has no full version of.
const PROGRAMS: [&str; 7] = [
    "ip", "tc", "bpftool", "nsenter", "setpriv", "socat", "unshare",
];

/// Writes the initramfs for `kernel` and returns its path. `cards` is what the suites are told of
/// the machine's network cards, where it has any.
pub fn build(
    kernel: &Kernel,
    built: &Built,
    suites: &[Suite],
    selection: &Selection<'_>,
    cards: Option<&str>,
) -> Result<PathBuf> {
    let root = kernel.folder.join("initramfs");
    if root.exists() {
        fs::remove_dir_all(&root)
            .with_context(|| format!("{} could not be removed", root.display()))?;
    }
    let mut image = Image { root };

    image.text("init", INIT, 0o755)?;
    image.text("etc/arguments", &selection.arguments(), 0o644)?;
    image.busybox()?;
    image.modules(kernel, cards.is_some())?;
    image.text("etc/cards", cards.unwrap_or_default(), 0o644)?;
    for program in PROGRAMS {
        let path = sbin(program);
        image.program(&path, &format!("usr/bin/{program}"))?;
    }
    image.program(&built.binary, "portguard")?;
    image.file(&built.object, "portguard.o")?;
    for suite in suites {
        image.program(&suite.executable, &format!("suites/{}", suite.name))?;
    }
    // Where cargo puts it, seen from a suite: one folder above.
    image.program(&suites::altered(suites)?, "portguard-altered")?;

    image.pack(&kernel.folder.join("initramfs.cpio"))
}

/// The folder that becomes the guest's root file system.
struct Image {
    root: PathBuf,
}

impl Image {
    fn busybox(&mut self) -> Result<()> {
        let busybox = process::find("busybox").context("busybox is missing: install it")?;
        ensure!(
            libraries(&busybox)?.is_empty(),
            "{} needs shared libraries: install busybox-static",
            busybox.display(),
        );
        self.file(&busybox, "bin/busybox")?;
        symlink("busybox", self.root.join("bin/sh")).context("bin/sh could not be made")
    }

    fn modules(&mut self, kernel: &Kernel, cards: bool) -> Result<()> {
        let mut order = String::new();
        for module in modules::needed(kernel, cards)? {
            let file = module.file_name().unwrap_or_default().to_string_lossy();
            if let Some(name) = file.strip_suffix(".xz") {
                // busybox's insmod reads no compressed modules.
                self.filled(
                    &format!("modules/{name}"),
                    Command::new("xz").arg("-dc").arg(&module),
                )?;
                order += &format!("{name}\n");
            } else {
                self.file(&module, &format!("modules/{file}"))?;
                order += &format!("{file}\n");
            }
        }
        self.text("modules/order", &order, 0o644)
    }

    /// Puts a program at `to`, without its debug information, and its libraries where it
    /// looks for them.
    fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        let libraries = libraries(from)?;
        let destination = self.place(to)?;
        process::run(
            Command::new("strip")
                .arg("--strip-debug")
                .arg("-o")
                .arg(&destination)
                .arg(from),
        )?;
        for library in libraries {
            let place = library.strip_prefix("/").unwrap_or(&library);
            self.file(&library, &place.to_string_lossy())?;
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &str) -> Result<()> {
        let destination = self.place(to)?;
        fs::copy(from, &destination)
            .with_context(|| format!("{} could not be copied", from.display()))?;
        Ok(())
    }

    fn text(&mut self, to: &str, text: &str, mode: u32) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;

        let destination = self.place(to)?;
        fs::write(&destination, text)
            .and_then(|()| fs::set_permissions(&destination, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("{} could not be written", destination.display()))
    }

    /// Fills the file `to` with what `command` prints.
    fn filled(&mut self, to: &str, command: &mut Command) -> Result<()> {
        let destination = self.place(to)?;
        let file = File::create(&destination)
            .with_context(|| format!("{} could not be written", destination.display()))?;
        process::run(command.stdout(file))
    }

    fn place(&self, to: &str) -> Result<PathBuf> {
        let destination = self.root.join(to);
        let folder = destination.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)
            .with_context(|| format!("{} could not be made", folder.display()))?;
        Ok(destination)
    }

    fn pack(&self, archive: &Path) -> Result<PathBuf> {
        let file = File::create(archive)
            .with_context(|| format!("{} could not be written", archive.display()))?;
        let mut find = Command::new("find")
            .arg(".")
            .current_dir(&self.root)
            .stdout(Stdio::piped())
            .spawn()
            .context("find could not be started")?;
        let names = find.stdout.take().context("find has no output")?;
        process::run(
            Command::new("cpio")
                .args(["--create", "--format=newc", "--owner=0:0", "--quiet"])
                .current_dir(&self.root)
                .stdin(names)
                .stdout(file),
        )?;
        ensure!(
            find.wait()?.success(),
            "find failed in {}",
            self.root.display()
        );

        Ok(archive.to_path_buf())
    }
}

/// The shared libraries of `program`, with those that they need themselves.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("ldd could not be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // It fails on a static program, and says so on either stream.
    let message = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && !message.contains("not a dynamic executable") {
        bail!("ldd failed on {}: {}", program.display(), message.trim());
    }
    listed(&text).with_context(|| format!("{} lacks a shared library", program.display()))
}

fn listed(ldd: &str) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    for line in ldd.lines().map(str::trim) {
        ensure!(!line.ends_with("not found"), "{line}");
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        let path = path.split_once(" (").map_or(path, |(path, _)| path);
        if path.starts_with('/') {
            libraries.insert(path.into());
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_listed() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f9)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f8)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(listed(ldd).unwrap(), expected.map(PathBuf::from).into());
    }

    #[test]
    fn a_static_program_needs_none() {
        assert_eq!(listed("\tstatically linked\n").unwrap(), BTreeSet::new());
    }

    #[test]
    fn a_missing_library_is_an_error() {
        assert!(listed("\tlibelf.so.1 => not found\n").is_err());
    }
}
