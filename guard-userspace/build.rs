//! Finds the BPF object that the binary carries, and lists the maps in it.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use object::{Object, ObjectSection, ObjectSymbol};

fn main() {
    println!("cargo::rerun-if-env-changed=PORTGUARD_BPF_OBJECT");
    let object = env::var_os("PORTGUARD_BPF_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/portguard.o"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-env=PORTGUARD_BPF_OBJECT={}", object.display());
    if !object.is_file() {
        let remedy = "the BPF object is not built; run `cargo xtask build`";
        println!("cargo::error={}: {remedy}", object.display());
    } else if let Err(error) = list_maps(&object) {
        println!("cargo::error={}: {error}", object.display());
    }
}

/// Writes the names of all maps, which `bpf::pins` includes: each is declared in the object alone.
fn list_maps(object: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(object)?;
    let object = object::File::parse(&*bytes)?;
    let section = object.section_by_name(".maps").ok_or("it has no maps")?;
    let mut maps = Vec::new();
    for symbol in object.symbols() {
        if symbol.section_index() == Some(section.index()) && symbol.is_global() {
            maps.push(symbol.name()?);
        }
    }
    maps.sort_unstable();
    if maps.is_empty() {
        return Err("its maps have no names".into());
    }

    let list = format!("[&str; {}] = {maps:?}", maps.len());
    let about = "The maps of the object, all of which outlive the daemon, by name.";
    let text = format!("/// {about}\npub const MAPS: {list};\n");
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no folder")?);
    fs::write(folder.join("maps.rs"), text)?;

    Ok(())
}
