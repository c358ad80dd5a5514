//! Finds the BPF object that the binary carries.

use std::{env, path::PathBuf, process::exit};

fn main() {
    println!("cargo::rerun-if-env-changed=PORTGUARD_BPF_OBJECT");
    let object = env::var_os("PORTGUARD_BPF_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/portguard.o"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    if !object.is_file() {
        println!(
            "cargo::error={}: the BPF object is not built; run `cargo xtask build`",
            object.display()
        );
        exit(1);
    }

    println!("cargo::rustc-env=PORTGUARD_BPF_OBJECT={}", object.display());
}
