//! The maps of a guard without its programs: pinned, for tests that walk or sweep them.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
};

use anyhow::{Context, Result};
use aya::{Ebpf, EbpfLoader, maps::MapData, programs::SchedClassifier};
use guard_common::{
    abi::{
        layout::LAYOUT_VERSION,
        page::{InForce, Page},
    },
    flow::{key::FlowKeyV4, state::Flow},
};
use guard_userspace::{
    bpf::{
        clock::Clock,
        maps::{FLOW_MAPS, FlowMap, StateMemory},
        pins::{MAPS, Pins},
    },
    config::{ConfigLayer, Settings},
    guard::{
        fault_injection::Parts,
        sweep::Sweeper,
        timers::{self, Timers},
    },
};

use crate::{bpffs, build, setup};

/// Entries of the maps that a test does not ask for.
const FEW: u32 = 1024;

/// Pinned maps, which disappear with the test.
pub struct PinnedMaps {
    pins: Pins,
    clock: Arc<Clock>,
    timers: Arc<Timers>,
    state: Arc<StateMemory>,
    // The program that tells the time stays loaded with it.
    _ebpf: Ebpf,
    _folder: bpffs::Folder,
}

impl PinnedMaps {
    /// Makes the maps, some of them with so many entries, configured as by these flags.
    pub fn new(capacities: &[(&str, u32)], flags: ConfigLayer) -> Result<Self> {
        let folder = bpffs::Folder::new()?;
        let pins = Pins::new(folder.path(), "maps");
        pins.prepare()?;
        let object = fs::read(build::object())?;
        let device = 0_u32;
        let mut loader = EbpfLoader::new();
        loader.btf(None).override_global("DEVICE", &device, true);
        for name in MAPS {
            loader.map_pin_path(name, pins.map(name));
        }
        for (name, _, _) in FLOW_MAPS {
            let asked = capacities.iter().find(|(asked, _)| *asked == name);
            loader.map_max_entries(name, asked.map_or(FEW, |(_, entries)| *entries));
        }
        let mut ebpf = loader.load(&object).context("create the maps")?;
        let clock: &mut SchedClassifier = ebpf
            .program_mut("clock")
            .context("the object tells no time")?
            .try_into()?;
        clock.load()?;
        let clock = Clock::new(clock.fd()?.as_fd().try_clone_to_owned()?)?;

        let flags = ConfigLayer {
            iface: Some(vec!["none".to_owned()]),
            ..flags
        };
        let settings = Settings::load(&flags, None)?;
        let timers = Timers::new(&settings, clock.hertz());
        let state = Arc::new(StateMemory::open(&pins)?);
        state.begin(setup::FILTER.seeds);
        // Nothing is guarded, which no settings ask for.
        let mut page = Box::new(Page::EMPTY);
        page.timeouts = timers.configured();
        let in_force = InForce::NOTHING
            .with(
                InForce::ANY_REMOTE_PORT,
                settings.udp_filter.any_remote_port(),
            )
            .with(InForce::RESCUE, !settings.no_rescue);
        state.replace(&page, in_force);
        state.set_layout(LAYOUT_VERSION);
        Ok(Self {
            pins,
            clock: Arc::new(clock),
            timers: Arc::new(timers),
            state,
            _ebpf: ebpf,
            _folder: folder,
        })
    }

    /// What both programs ask of every frame.
    pub fn state(&self) -> Arc<StateMemory> {
        Arc::clone(&self.state)
    }

    /// What the timers in force follow from, as the daemon has it.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Puts the timers of other settings in force, as a reload does.
    pub fn reconfigure(&self, settings: &Settings) {
        let configured = timers::configured(settings, self.clock.hertz());
        let timers = (configured, settings.adaptive_timeouts.0);
        self.timers
            .reconfigure(timers, |timeouts| self.state.set_timeouts(timeouts));
    }

    /// The time in ticks.
    pub fn now(&self) -> Result<u32> {
        self.clock.now()
    }

    /// The flow maps as the daemon walks them.
    pub fn flows(&self) -> Result<Vec<FlowMap>> {
        FlowMap::open_all(&self.pins)
    }

    /// A sweeper of the maps. It lists the sockets of its caller.
    pub fn sweeper(&self, parts: Parts) -> Result<Sweeper> {
        let (clock, timers) = (Arc::clone(&self.clock), Arc::clone(&self.timers));
        Sweeper::open(&self.pins, self.state(), clock, timers, parts)
    }

    /// Puts many flows into a map of IPv4 flows at a time.
    pub fn fill(&self, name: &str, keys: &[FlowKeyV4], flow: Flow) -> Result<()> {
        /// `BPF_MAP_UPDATE_BATCH`, include/uapi/linux/bpf.h.
        const UPDATE_BATCH: libc::c_int = 26;

        let values = vec![flow; keys.len()];
        self.batch(UPDATE_BATCH, name, keys, values.as_ptr())
            .context("fill the map")
    }

    /// Takes many flows out of a map of IPv4 flows at a time, all of which are in it.
    pub fn empty(&self, name: &str, keys: &[FlowKeyV4]) -> Result<()> {
        /// `BPF_MAP_DELETE_BATCH`.
        const DELETE_BATCH: libc::c_int = 27;

        self.batch(DELETE_BATCH, name, keys, std::ptr::null())
            .context("empty the map")
    }

    fn batch(
        &self,
        command: libc::c_int,
        name: &str,
        keys: &[FlowKeyV4],
        values: *const Flow,
    ) -> Result<()> {
        #[repr(C)]
        struct Batch {
            in_batch: u64,
            out_batch: u64,
            keys: u64,
            values: u64,
            count: u32,
            map: u32,
            element_flags: u64,
            flags: u64,
        }

        let map = MapData::from_pin(self.pins.map(name))?;
        let mut attr = Batch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values: values as u64,
            count: u32::try_from(keys.len())?,
            map: map.fd().as_fd().as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: keys, and values where there are any, are as many as the kernel is told, of the
        // map's own types, and outlive the call.
        let done =
            unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<Batch>()) };
        if done != 0 {
            return Err(io::Error::last_os_error().into());
        }
        Ok(())
    }
}
