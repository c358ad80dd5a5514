//! Where the things under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The BPF object.
pub fn object() -> PathBuf {
    built("PORTGUARD_BPF_OBJECT", "bpf/portguard.o")
}

/// The binary.
pub fn binary() -> PathBuf {
    built("PORTGUARD_BIN", "release/portguard")
}

/// The daemon with parts of it switched off. Cargo builds it with the suites and puts it one
/// folder above them.
pub fn altered() -> PathBuf {
    const NAME: &str = "portguard-altered";

    let suite = env::current_exe().expect("a process has an executable");
    let folder = suite.parent().and_then(Path::parent);
    let path = folder.unwrap_or(Path::new("/")).join(NAME);
    assert!(
        path.is_file(),
        "{} is missing: type `cargo build --package guard-tests`",
        path.display(),
    );
    path
}

/// The binary of an earlier version, where there is one: `cargo xtask test` builds it from the history
/// of the clone.
pub fn earlier() -> Option<PathBuf> {
    let path = env::var_os("PORTGUARD_EARLIER").map(PathBuf::from)?;
    assert!(path.is_file(), "{} is missing", path.display());
    Some(path)
}

fn built(variable: &str, in_target: &str) -> PathBuf {
    let path = env::var_os(variable).map_or_else(
        || {
            let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            workspace.join("target").join(in_target)
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "{} is missing: type `cargo xtask build`, or name it in {variable}",
        path.display(),
    );
    path
}
