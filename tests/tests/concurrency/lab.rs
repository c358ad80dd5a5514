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
use guard_common::{
    frame::transport::Transport,
    outcome::{Decision, Outcome},
};
use guard_tests::{
    bpffs::Folder,
    frames::G,
    netns::Namespace,
    programs::{Entry, Programs},
    setup::{self, FIRST, LAST, Setup},
};
use guard_userspace::{
    bpf::{
        clock::Clock,
        maps::{Prefixes, StateMemory, TunnelPorts},
        pins::{MAPS, Pins},
    },
    config::{ConfigLayer, Settings},
    guard::{
        fault_injection::Parts,
        lifecycle::{HostFacts, Lists, Policy, Publisher},
        sweep::Sweeper,
        timers::Timers,
    },
    host::range::{GuardedPorts, LocalPorts, PortBitmap, PortRange},
};

/// Both hold every port that is used here.
const RANGES: [(u16, u16); 2] = [(FIRST, LAST), (30_000, 65_535)];

/// The port that every policy exposes.
pub const EXPOSED: u16 = 59_000;

/// The programs, and where the daemon's parts find their maps.
pub struct Lab {
    pub programs: Programs,
    pub pins: Pins,
    clock: Arc<Clock>,
    changed: AtomicBool,
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
            changed: AtomicBool::new(false),
            host: Namespace::new("i")?,
            _folder: folder,
        })
    }

    /// How often this has happened.
    pub fn count(&self, outcome: Outcome) -> Result<u64> {
        let counters = self.programs.counters(setup::DEVICE)?;

        Ok(counters[Decision::slots(outcome)].iter().sum())
    }

    /// Lets sweeps follow each other, and counts them.
    pub fn sweep(&self, parts: Parts, ended: &AtomicBool, sweeps: &AtomicU32) -> Result<()> {
        let clock = Arc::clone(&self.clock);
        let flags = ConfigLayer {
            iface: Some(vec!["none".to_owned()]),
            ..ConfigLayer::default()
        };
        let timers = Timers::new(&Settings::load(&flags, None)?, clock.hertz());
        let state = Arc::new(StateMemory::open(&self.pins)?);
        let mut sweeper = Sweeper::open(&self.pins, state, clock, Arc::new(timers), parts)?;
        self.host.run(|| {
            while !ended.load(Ordering::Relaxed) {
                sweeper.sweep()?;
                sweeps.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        })
    }

    /// Whether a policy was put in force.
    pub fn is_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    /// Puts one policy after the other in force: other ranges, and other questions before a drop. All
    /// of them trust somebody behind a router, and expose one port.
    pub fn change(&self, ended: &AtomicBool, most: u32) -> Result<u32> {
        let state = Arc::new(StateMemory::open(&self.pins)?);
        let flags = ConfigLayer {
            iface: Some(vec!["none".to_owned()]),
            ..ConfigLayer::default()
        };
        let settings = Settings::load(&flags, None)?;
        let timers = Arc::new(Timers::new(&settings, self.clock.hertz()));
        let mut publisher = Publisher::new(state, timers);
        let mut trusted = Prefixes::open(&self.pins, "trusted")?;
        let mut kernel_ports = TunnelPorts::open(&self.pins)?;
        let mut changes = 0;
        while !ended.load(Ordering::Relaxed) && changes < most {
            let (first, last) = RANGES[changes as usize % RANGES.len()];
            let local = LocalPorts {
                range: PortRange::new(first, last)?,
                reserved: Vec::new(),
            };
            let host = HostFacts {
                forwards: changes % 3 == 0,
                own: [G.ipv4.into(), G.ipv6.into()].into(),
            };
            let exposed = PortRange::new(EXPOSED, EXPOSED)?;
            let ports = GuardedPorts::new(&local, [(Transport::Tcp, exposed)]);
            let mut policy = Policy::of(&settings, &ports, &host, self.clock.hertz());
            // Nothing is rescued here.
            policy.rescue = false;
            policy.trusted = ["192.0.2.0/24".parse()?, "2001:db8::/64".parse()?].into();
            if changes % 2 == 0 {
                policy.trusted.insert("203.0.113.0/24".parse()?);
            }
            let plan = Policy::plan(publisher.in_force(), &policy);
            let lists = Lists {
                trusted: &mut trusted,
                kernel_ports: &mut kernel_ports,
            };
            publisher.publish(policy, &plan, &PortBitmap::default(), lists)?;
            changes += 1;
            self.changed.store(true, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(5));
        }
        Ok(changes)
    }
}
