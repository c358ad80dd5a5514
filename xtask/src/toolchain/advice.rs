//! The commands to type where we cannot install anything ourselves.

use std::fs;

use super::install::{COMPILER_PACKAGES, LINKER_VERSION, linker_packages};

/// The LLVM of Debian's `rustc-web`.
const DEBIAN_LLVM: u32 = 22;

/// What a person on this distribution has to type.
pub fn for_this_machine() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if is_debian_12(&release) {
        on_debian()
    } else {
        elsewhere()
    }
}

fn on_debian() -> String {
    format!(
        "type, as root:\n  \
         apt-get update\n  \
         apt-get install --yes --no-install-recommends {} {}\n\
         and then, in this folder:\n  \
         LLVM_PREFIX=/usr/lib/llvm-{DEBIAN_LLVM} cargo install bpf-linker \
         --version {LINKER_VERSION} --no-default-features --features llvm-{DEBIAN_LLVM} \
         --root target/tools",
        COMPILER_PACKAGES.join(" "),
        linker_packages(DEBIAN_LLVM).join(" "),
    )
}

fn elsewhere() -> String {
    format!(
        "type, in this folder:\n  \
         rustup component add rust-src\n  \
         cargo install cargo-binstall\n  \
         cargo binstall --root target/tools bpf-linker@{LINKER_VERSION}"
    )
}

/// Only that release carries `rustc-web` in a version that is new enough.
fn is_debian_12(os_release: &str) -> bool {
    os_release
        .lines()
        .any(|line| line == "VERSION_CODENAME=bookworm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_12_is_known_by_its_code_name() {
        assert!(is_debian_12("ID=debian\nVERSION_CODENAME=bookworm\n"));
        assert!(!is_debian_12("ID=debian\nVERSION_CODENAME=trixie\n"));
        assert!(!is_debian_12(""));
    }

    #[test]
    fn the_commands_for_debian_name_every_package_and_the_tool_folder() {
        let commands = on_debian();
        for part in [
            "rust-web-src",
            "libpolly-22-dev",
            "llvm-22 --root target/tools",
        ] {
            assert!(commands.contains(part), "{part} is missing in {commands}");
        }
    }
}
