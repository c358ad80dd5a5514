//! The bench's own programs.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{Program, ProgramFd, SchedClassifier, Xdp},
};

use crate::recipe::Recipe;

const XDP: [&str; 5] = [
    "bare_drop",
    "bare_pass",
    "bare_udp_drop",
    "generate",
    "vary_received",
];
const CLASSIFIERS: [&str; 2] = ["bare_next", "vary_sent"];

// SAFETY: a structure of 32-bit integers.
unsafe impl Pod for Recipe {}

/// One copy of them, with maps of its own.
pub struct BenchPrograms(Ebpf);

impl BenchPrograms {
    /// Loads a copy.
    pub fn load() -> Result<Self> {
        let path = env::var_os("PORTGUARD_BENCH_OBJECT").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/bench.o"),
            PathBuf::from,
        );
        let object = fs::read(&path)
            .with_context(|| format!("{}: type `cargo xtask bench`", path.display()))?;
        let mut ebpf = EbpfLoader::new()
            .load(&object)
            .context("load the bench's own programs")?;
        for name in XDP {
            let program: &mut Xdp = program_mut(&mut ebpf, name)?.try_into()?;
            program.load().with_context(|| format!("load {name}"))?;
        }
        for name in CLASSIFIERS {
            let program: &mut SchedClassifier = program_mut(&mut ebpf, name)?.try_into()?;
            program.load().with_context(|| format!("load {name}"))?;
        }
        Ok(Self(ebpf))
    }

    /// One of the programs.
    pub fn descriptor(&self, name: &str) -> Result<&ProgramFd> {
        let program = self.0.program(name).with_context(|| name.to_owned())?;
        Ok(program.fd()?)
    }

    /// Sets how one frame differs from the next.
    pub fn follow(&mut self, recipe: Recipe) -> Result<()> {
        ensure!(
            recipe.flows > 0 && recipe.flow_ports > 0 && recipe.unsolicited_ports > 0,
            "a recipe without flows, ports of theirs or ports of unsolicited senders: {recipe:?}"
        );
        let map = self.0.map_mut("recipe").context("the map recipe")?;
        let mut recipes: Array<_, Recipe> = map.try_into()?;
        recipes.set(0, recipe, 0)?;
        Ok(())
    }

    /// Sets the number of the next frame, for each processor apart.
    pub fn number_from(&mut self, numbers: Vec<u32>) -> Result<()> {
        let map = self.0.map_mut("number").context("the map number")?;
        let mut next: PerCpuArray<_, u32> = map.try_into()?;
        next.set(0, numbers.try_into()?, 0)?;
        Ok(())
    }

    /// Lets the program `from` show what it makes to a program of its kind.
    pub fn show_to(&mut self, from: Varying, program: &ProgramFd) -> Result<()> {
        let map = self.0.map_mut(from.map()).context("a map of programs")?;
        let mut programs: ProgramArray<_> = map.try_into()?;
        programs.set(0, program, 0)?;
        Ok(())
    }
}

/// The two programs that show another frame each time to the program that is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Varying {
    /// To an XDP program.
    Received,
    /// To a classifier.
    Sent,
}

impl Varying {
    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "vary_received",
            Self::Sent => "vary_sent",
        }
    }

    const fn map(self) -> &'static str {
        match self {
            Self::Received => "subject",
            Self::Sent => "recorder",
        }
    }
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program> {
    ebpf.program_mut(name)
        .with_context(|| format!("the object has no program {name}"))
}
