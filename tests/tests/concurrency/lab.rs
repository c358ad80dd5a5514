//! The loaded programs, and the parts of the daemon that change what they go by.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use guard_common::outcome::{Decision, Family, Outcome, Protocol, Verdict};
use guard_tests::{
    bpffs::Folder,
    netns::Namespace,
    programs::{Entry, Programs},
    setup::{self, FIRST, LAST, Setup},
};
use guard_userspace::{
    bpf::{
        clock::Clock,
        maps::StateMemory,
        pins::{MAPS, Pins},
    },
    config::{ConfigLayer, Settings},
    guard::{fault_injection::Parts, sweep::Sweeper, timers::Timers},
    host::range::{GuardedPorts, LocalPorts, PortRange},
};

/// Both hold every port that is used here.
const RANGES: [(u16, u16); 2] = [(FIRST, LAST), (30_000, 65_535)];

/// The programs, and where the daemon's parts find their maps.
pub struct Lab {
    pub programs: Programs,
    pub pins: Pins,
    clock: Arc<Clock>,
    /// Without sockets, so that none of them is taken for a flow.
    host: Namespace,
    _folder: Folder,
}

impl Lab {
    pub fn new(room: u32) -> Result<Self> {
        let mut programs = Programs::load_with(Entry::Whole, room)?;
        // Nothing is rescued here.
        programs.reset(Setup::default())?;
        let folder = Folder::new()?;
        let pins = Pins::new(folder.path(), "inserts");
        pins.prepare()?;
        for name in MAPS {
            programs.pin(name, &pins.map(name))?;
        }
        let clock = programs.program_fd("clock")?.try_clone_to_owned()?;
        Ok(Self {
            programs,
            pins,
            clock: Arc::new(Clock::new(clock)?),
            host: Namespace::new("i")?,
            _folder: folder,
        })
    }

    /// How often this has happened.
    pub fn count(&self, outcome: Outcome) -> Result<u64> {
        let counters = self.programs.counters(setup::DEVICE)?;
        let mut count = 0;
        for verdict in Verdict::ALL {
            for family in Family::ALL {
                for protocol in Protocol::ALL {
                    let decision = Decision {
                        outcome,
                        family,
                        protocol,
                    };
                    count += counters[decision.slot(verdict) as usize];
                }
            }
        }
        Ok(count)
    }

    /// Lets sweeps follow each other, and counts them.
    pub fn sweep(&self, parts: Parts, ended: &AtomicBool, sweeps: &AtomicU32) -> Result<()> {
        let clock = Arc::clone(&self.clock);
        let flags = ConfigLayer {
            iface: Some(vec!["none".to_owned()]),
            ..ConfigLayer::default()
        };
        let timers = Timers::new(&Settings::load(&flags, None)?, clock.hertz());
        let mut sweeper = Sweeper::open(&self.pins, clock, Arc::new(timers), parts)?;
        self.host.run(|| {
            while !ended.load(Ordering::Relaxed) {
                sweeper.sweep()?;
                sweeps.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        })
    }

    /// Puts one range after the other in force.
    pub fn change(&self, ended: &AtomicBool) -> Result<u32> {
        let mut state = StateMemory::open(&self.pins)?;
        let mut changes = 0;
        while !ended.load(Ordering::Relaxed) {
            let (first, last) = RANGES[changes as usize % RANGES.len()];
            let local = LocalPorts {
                range: PortRange::new(first, last)?,
                reserved: Vec::new(),
            };
            state.guard_ports(&GuardedPorts::new(&local, []), [].into_iter());
            changes += 1;
            thread::sleep(Duration::from_millis(5));
        }
        Ok(changes)
    }
}
