//! The loaded programs, run by hand on single frames.

mod element;
mod memory;
pub mod raw;
mod state;

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    maps::{Array, LpmTrie, Map, MapData, lpm_trie::Key},
    programs::{ProgramFd, ProgramInfo, SchedClassifier, Xdp},
    util::nr_cpus,
};
use guard_common::{
    abi::{
        config::Config,
        device::Device,
        page::{InForce, Page},
    },
    flow::{key::AddressKey, timer::JIFFIES_PER_TICK_SHIFT},
    outcome::Verdict,
};

use self::raw::Shared;
use crate::{
    build,
    kernel::Kernel,
    setup::{self, Setup},
};

/// Entries of each flow map here: enough that none is ever evicted.
const MAX_FLOWS: u32 = 4096;

/// The longest frame that every kernel takes in one piece: a page less head and tail room.
pub const LONGEST_WHOLE: usize = 3_300;

/// What XDP calls frames in several pieces.
pub const FRAGS: Kernel = Kernel::new(5, 18);

/// Whether the kernel lets a classifier be run on this frame: not where it ends within the network
/// header. Nothing such is ever recorded.
pub fn can_be_sent(frame: &[u8]) -> bool {
    match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 0x86, 0xdd, packet @ ..] => packet.len() >= 40,
        _ => frame.len() >= 14 + 20,
    }
}

/// One of the two entry points of XDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Frames are one piece of memory.
    Whole,
    /// Frames may come in several pieces.
    Frags,
}

impl Entry {
    /// The name of the program.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Whole => "ingress",
            Self::Frags => "ingress_frags",
        }
    }
}

/// The programs and maps of one guard that is attached nowhere.
pub struct Programs {
    ebpf: Ebpf,
    entry: Entry,
    processors: usize,
}

impl Programs {
    /// Loads the object, with one of its two entry points of XDP.
    pub fn load(entry: Entry) -> Result<Self> {
        Self::load_with(entry, MAX_FLOWS)
    }

    /// Loads the object, with room for so many flows in each map.
    pub fn load_with(entry: Entry, max_flows: u32) -> Result<Self> {
        let path = build::object();
        let object = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        raise_locked_memory_limit();
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .override_global("DEVICE", &setup::DEVICE, true)
            .map_max_entries("flows_tcp4", max_flows)
            .map_max_entries("flows_udp4", max_flows)
            .map_max_entries("flows_tcp6", max_flows)
            .map_max_entries("flows_udp6", max_flows)
            .load(&object)
            .context("load the object")?;
        for name in ["egress", "egress_last", "clock"] {
            let program: &mut SchedClassifier = program_mut(&mut ebpf, name)?.try_into()?;
            program
                .load()
                .with_context(|| format!("load the program {name}"))?;
        }
        let name = entry.program();
        let program: &mut Xdp = program_mut(&mut ebpf, name)?.try_into()?;
        program
            .load()
            .with_context(|| format!("load the program {name}"))?;

        let processors = nr_cpus().map_err(|(file, error)| anyhow!("{file}: {error}"))?;
        Ok(Self {
            ebpf,
            entry,
            processors,
        })
    }

    /// Makes this the guard that `setup` says, which has seen nothing yet.
    pub fn reset(&mut self, setup: Setup) -> Result<()> {
        state::set(self.state()?.bytes_mut(), setup);
        let mut devices: Array<_, Device> = self.array("devices")?;
        devices.set(setup::DEVICE, setup::device(), 0)?;
        for (prefix, bits) in setup::neighbours() {
            let bits = AddressKey::FAMILY_BITS + bits;
            let prefix = AddressKey {
                family: setup::DEVICE << 8 | prefix.family,
                ..prefix
            };
            let map = self.map_mut("neighbours")?;
            let mut neighbours: LpmTrie<_, AddressKey, u32> = map.try_into()?;
            neighbours.insert(&Key::new(bits, prefix), 1, 0)?;
        }
        for (prefix, bits) in setup::trusted() {
            let bits = AddressKey::FAMILY_BITS + bits;
            let map = self.map_mut("trusted")?;
            let mut trusted: LpmTrie<_, AddressKey, u32> = map.try_into()?;
            trusted.insert(&Key::new(bits, prefix), 1, 0)?;
        }
        self.forget()
    }

    /// Configures something that no [`Setup`] asks for.
    pub fn configure(&mut self, config: &Config, device: Device) -> Result<()> {
        state::set_config(self.state()?.bytes_mut(), config);
        let mut devices: Array<_, Device> = self.array("devices")?;
        devices.set(setup::DEVICE, device, 0)?;
        Ok(())
    }

    /// Puts another page in force in place of the first.
    pub fn set_page(&mut self, page: &Page) -> Result<()> {
        state::set_page(self.state()?.bytes_mut(), 0, page);
        Ok(())
    }

    /// Lets egress record what `next` guards as well, as [`MemoryDatapath::record_both`] does.
    ///
    /// [`MemoryDatapath::record_both`]: crate::memory::MemoryDatapath::record_both
    pub fn record_both(&mut self, setup: Setup, next: InForce, page: &Page) -> Result<()> {
        let config = setup.config();
        let recorded = config.in_force.before(next);
        let mut memory = self.state()?;
        let state = memory.bytes_mut();
        state::set_config(state, &Config { recorded, ..config });
        state::set_page(state, config.in_force.page() ^ 1, page);
        Ok(())
    }

    /// Puts another epoch in force.
    pub fn set_epoch(&mut self, epoch: u32) -> Result<()> {
        state::set_epoch(self.state()?.bytes_mut(), epoch);
        Ok(())
    }

    /// A loaded program, for tests that run it in ways of their own.
    pub fn descriptor(&self, name: &str) -> Result<&ProgramFd> {
        let program = self.ebpf.program(name).with_context(|| name.to_owned())?;
        Ok(program.fd()?)
    }

    /// Checks a received frame.
    pub fn ingress(&self, frame: &[u8]) -> Result<Verdict> {
        let name = self.entry.program();
        let program: &Xdp = self.ebpf.program(name).context(name)?.try_into()?;
        let verdict = program.test_run(input(frame))?.return_value;
        match verdict {
            aya_xdp::DROP => Ok(Verdict::Drop),
            aya_xdp::PASS => Ok(Verdict::Pass),
            other => bail!("XDP does not know a verdict {other}"),
        }
    }

    /// Records a sent frame.
    pub fn egress(&self, frame: &[u8]) -> Result<Verdict> {
        let program: &SchedClassifier =
            self.ebpf.program("egress").context("egress")?.try_into()?;
        let verdict = program.test_run(input(frame))?.return_value as i32;
        // TCX_NEXT, which is TC_ACT_UNSPEC: the next program decides.
        ensure!(verdict == -1, "egress returned {verdict}");
        Ok(Verdict::Pass)
    }

    /// The time in ticks.
    pub fn now(&self) -> Result<u32> {
        let program: &SchedClassifier = self.ebpf.program("clock").context("clock")?.try_into()?;
        let mut frame = [0; 64];
        let result = program.test_run(TestRunOptions {
            data_in: Some(&[0; 64]),
            data_out: Some(&mut frame),
            ..TestRunOptions::default()
        })?;
        ensure!(result.return_value == 0, "the clock could not be read");
        let jiffies: [u8; 8] = frame[..8].try_into()?;
        Ok((u64::from_ne_bytes(jiffies) >> JIFFIES_PER_TICK_SHIFT) as u32)
    }

    /// What the kernel knows about each program of the object.
    pub fn infos(&self) -> Result<Vec<(String, ProgramInfo)>> {
        let loaded = ["egress", "egress_last", "clock", self.entry.program()];
        self.ebpf
            .programs()
            .filter(|(name, _)| loaded.contains(name))
            .map(|(name, program)| Ok((name.to_owned(), program.info()?)))
            .collect()
    }

    /// Pins a map, so that another program can be asked about it.
    pub fn pin(&self, name: &str, path: &Path) -> Result<()> {
        let map = self.ebpf.map(name).with_context(|| name.to_owned())?;
        map.pin(path).with_context(|| format!("pin {name}"))
    }

    /// A map, for bare system calls.
    pub fn map_fd(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let data = match self.ebpf.map(name).with_context(|| name.to_owned())? {
            Map::Array(data)
            | Map::PerCpuArray(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::LpmTrie(data) => data,
            other => bail!("{name} is of a kind that nobody asks for: {other:?}"),
        };
        Ok(data.fd().as_fd())
    }

    fn state(&self) -> Result<Shared> {
        Shared::map(self.map_fd("state")?, state::SIZE)
    }

    /// A program, likewise.
    pub fn program_fd(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let program = self.ebpf.program(name).context(name.to_owned())?;
        Ok(program.fd()?.as_fd())
    }

    /// The processors that have counters of their own.
    pub const fn processors(&self) -> usize {
        self.processors
    }

    /// The entry point of XDP.
    pub const fn entry(&self) -> Entry {
        self.entry
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| name.to_owned())
    }

    fn array<V: aya::Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        let map = self.map_mut(name)?;
        map.try_into().with_context(|| name.to_owned())
    }
}

/// The verdicts of XDP.
mod aya_xdp {
    pub const DROP: u32 = 1;
    pub const PASS: u32 = 2;
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::programs::Program> {
    ebpf.program_mut(name)
        .with_context(|| format!("the object has no program {name}"))
}

fn input(frame: &[u8]) -> TestRunOptions<'_> {
    TestRunOptions {
        data_in: Some(frame),
        ..TestRunOptions::default()
    }
}

/// Before Linux 5.11 maps count as locked memory of the process.
fn raise_locked_memory_limit() {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the structure is valid for the call. Where it fails, so does loading, and says why.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}
