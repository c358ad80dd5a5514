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
