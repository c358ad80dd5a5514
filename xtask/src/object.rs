//! What an eBPF object is without what only debuggers read.

use anyhow::{Context, Result};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// The object without DWARF, which is most of it. The kernel and bpftool read BTF, which stays.
pub fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("the eBPF object is no ELF file")?;
    let is_dwarf = |name: &[u8]| name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    for section in &mut builder.sections {
        section.delete = is_dwarf(&section.name);
    }
    builder.delete_orphans();
    // LLVM keeps all names in one table, and the writer the sections' apart.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;

    let mut stripped = Vec::new();
    builder
        .write(&mut stripped)
        .context("the eBPF object cannot be written without DWARF")?;
    Ok(stripped)
}
