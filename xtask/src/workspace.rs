//! Where things are in the checkout.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    // Cargo names the folder at run time too, which stays right when the checkout has moved.
    let xtask = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().unwrap_or(&xtask).to_path_buf()
});

/// The folder of the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    &ROOT
}

/// The target folder of the host's crates.
pub fn target() -> PathBuf {
    root().join("target")
}

/// Where tools that belong to this checkout alone are installed.
pub fn tools() -> PathBuf {
    target().join("tools")
}

/// `path` as a person in the checkout would write it.
pub fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}
