//! The kernel programs: the object this binary carries, loaded once an interface.

mod loader;
#[cfg(feature = "bpf-log")]
mod log;

use std::{
    mem,
    os::fd::{AsFd, OwnedFd},
};

use anyhow::Context;
use aya::{
    Ebpf, EbpfError, EbpfLoader, include_bytes_aligned,
    maps::{Map, MapData, MapError, MapInfo},
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};
use guard_common::ports::bloom;

use self::loader::without_kernel_types;
use crate::{
    base::{failure::Failure, thread::OwnThread},
    bpf::{
        maps::FLOW_MAPS,
        pins::{MAPS, Pins},
    },
    host::{features::Feature, privileges},
};

/// The object that the programs and maps are in.
static OBJECT: &[u8] = include_bytes_aligned!(env!("PORTGUARD_BPF_OBJECT"));

/// Capacity of flow maps that no flow will ever be in.
const TRIAL_FLOWS: u32 = 1024;

/// Name of the program that records what is sent.
pub const EGRESS: &str = "egress";

/// Name of the copy of it that runs last.
pub const EGRESS_LAST: &str = "egress_last";

/// Name of the XDP program.
const INGRESS: &str = "ingress";

/// Name of the XDP program that reads frames in several pieces.
const INGRESS_FRAGS: &str = "ingress_frags";

/// Name of the program that tells the time.
const CLOCK: &str = "clock";

/// The ids of our programs.
#[derive(Clone, Debug, Default)]
pub struct ProgramIds {
    /// The one that records and counts.
    pub egress: u32,
    /// The one that runs last.
    pub last: u32,
    /// Those of earlier runs that are still in force.
    pub earlier: Vec<u32>,
}

/// A copy of the programs for one interface. All copies share the pinned maps.
#[derive(Debug)]
pub struct Programs {
    /// The program that records what is sent.
    sending: Ebpf,
    /// The program that decides about what is received.
    receiving: Receiving,
    ingress: &'static str,
    slot: u32,
    #[cfg(feature = "bpf-log")]
    #[expect(dead_code, reason = "stops forwarding when it is dropped")]
    log: Vec<log::Forwarding>,
}

/// The object with the XDP program, which takes the verifier twice as long as the other: a tenth
/// of a second, in which what is sent can be recorded already.
#[derive(Debug)]
enum Receiving {
    NotBegun,
    Loading(OwnThread<Result<Ebpf, Failure>>),
    Loaded(Ebpf),
    Refused,
}

impl Programs {
    /// Loads the TC programs for the interface in `slot` of the device table. The XDP program, which
    /// reads frames in several pieces or not, is loaded meanwhile if it is `wanted_now`, else by
    /// [`begin_ingress`](Self::begin_ingress). Creates and pins the maps unless they are pinned
    /// already, which must then fit.
    ///
    /// The verifier works on another thread, so that a signal is seen meanwhile: where the future is
    /// dropped nothing is pinned any more, and the kernel gives up when the process ends.
    ///
    /// # Errors
    /// When the kernel refuses a map or a program: exit code 77 when for want of a privilege,
    /// else 69. Nothing is pinned then that was not before.
    pub async fn load(
        slot: (u32, bool),
        pins: &Pins,
        max_flows: u32,
        wanted_now: bool,
    ) -> Result<Self, Failure> {
        let fresh = !pins.exist();
        let programs = match Self::begin(slot, pins, max_flows, wanted_now) {
            Ok(programs) => programs.load_egress_aside().await,
            Err(failure) => Err(failure),
        };
        if programs.is_err() && fresh {
            // The failure to load is worth more than one to clean up.
            let _ = pins.remove_maps();
        }

        programs
    }

    async fn load_egress_aside(mut self) -> Result<Self, Failure> {
        let work = OwnThread::begin(move || self.load_egress().map(|()| self));
        let work = work.context("start a thread that loads a program")?;
        work.ended().await;

        work.join()
            .map_err(|_| Failure::runtime("loading the egress program has panicked"))?
    }

    /// As [`load`](Self::load), but for the TC programs, which [`load_egress`](Self::load_egress)
    /// loads: this is short, and afterwards nothing is pinned any more.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn begin(
        slot: (u32, bool),
        pins: &Pins,
        max_flows: u32,
        wanted_now: bool,
    ) -> Result<Self, Failure> {
        let mut programs = Self::open(pinned(pins), slot, max_flows)?;
        if wanted_now {
            programs.begin_ingress(pins, max_flows)?;
        }

        Ok(programs)
    }

    /// Loads the programs with small maps of their own, which go when the value is dropped: says
    /// whether the kernel takes them.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn try_out() -> Result<Self, Failure> {
        let slot = (0, Feature::XdpFrags.is_expected());
        let mut programs = Self::open(without_kernel_types(), slot, TRIAL_FLOWS)?;
        programs.begin_with(without_kernel_types(), TRIAL_FLOWS)?;
        programs.load_egress()?;
        programs.wait()?;

        Ok(programs)
    }

    /// Opens the maps, and loads nothing yet.
    fn open(
        loader: EbpfLoader<'_>,
        (slot, frags): (u32, bool),
        max_flows: u32,
    ) -> Result<Self, Failure> {
        // Frames in several pieces need a program that says it can read them, and drivers that
        // have such frames refuse a larger MTU under one that cannot.
        // https://github.com/torvalds/linux/commit/c2f2cdbeffda
        let ingress = if frags { INGRESS_FRAGS } else { INGRESS };
        let sending = load_object(loader, &slot, max_flows)?;
        #[cfg(feature = "bpf-log")]
        let (sending, said_by_egress) = log::listen(sending)?;

        Ok(Self {
            sending,
            receiving: Receiving::NotBegun,
            ingress,
            slot,
            #[cfg(feature = "bpf-log")]
            log: vec![said_by_egress],
        })
    }

    /// Loads the TC programs.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_egress(&mut self) -> Result<(), Failure> {
        // The copy too, though few hosts need it: later the verifier would not take it any more, for
        // want of privileges.
        for name in [EGRESS, EGRESS_LAST] {
            let egress: &mut SchedClassifier = program(&mut self.sending, name)?;
            egress
                .load()
                .map_err(|error| refused_program(name, &error))?;
        }

        Ok(())
    }

    /// Has a thread load the XDP program, unless one does. Whether the kernel takes it is only known
    /// after [`wait`](Self::wait).
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn begin_ingress(&mut self, pins: &Pins, max_flows: u32) -> Result<(), Failure> {
        match self.receiving {
            Receiving::NotBegun => self.begin_with(pinned(pins), max_flows),
            Receiving::Loading(_) | Receiving::Loaded(_) | Receiving::Refused => Ok(()),
        }
    }

    fn begin_with(&mut self, loader: EbpfLoader<'_>, max_flows: u32) -> Result<(), Failure> {
        let receiving = load_object(loader, &self.slot, max_flows)?;
        #[cfg(feature = "bpf-log")]
        let (receiving, said_by_ingress) = log::listen(receiving)?;
        #[cfg(feature = "bpf-log")]
        self.log.push(said_by_ingress);
        let ingress = self.ingress;
        let thread = OwnThread::begin(move || load_ingress(receiving, ingress))
            .context("start a thread that loads a program")?;
        self.receiving = Receiving::Loading(thread);

        Ok(())
    }

    /// As [`wait`](Self::wait), and leaves the calling thread to others meanwhile.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn loaded(&mut self) -> Result<(), Failure> {
        if let Receiving::Loading(thread) = &self.receiving {
            thread.ended().await;
        }

        self.wait()
    }

    /// Waits until the kernel has taken the XDP program.
    ///
    /// # Errors
    /// When it refuses it: exit code 77 when for want of a privilege, else 69.
    pub fn wait(&mut self) -> Result<(), Failure> {
        let joined = match mem::replace(&mut self.receiving, Receiving::Refused) {
            Receiving::Loading(thread) => thread.join(),
            Receiving::Loaded(ebpf) => Ok(Ok(ebpf)),
            Receiving::NotBegun | Receiving::Refused => {
                return Err(Failure::runtime("the kernel has refused the XDP program"));
            }
        };
        let loaded = joined.map_err(|_| Failure::runtime("loading the XDP program has panicked"));
        self.receiving = Receiving::Loaded(loaded??);

        Ok(())
    }

    /// The XDP program.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn ingress(&mut self) -> Result<&mut Xdp, Failure> {
        self.wait()?;
        match &mut self.receiving {
            Receiving::Loaded(ebpf) => program(ebpf, self.ingress),
            Receiving::NotBegun | Receiving::Loading(_) | Receiving::Refused => {
                Err(Failure::runtime("the XDP program is not loaded"))
            }
        }
    }

    /// The TC program.
    ///
    /// # Errors
    /// Never, with the object this binary carries.
    pub fn egress(&mut self) -> Result<&mut SchedClassifier, Failure> {
        program(&mut self.sending, EGRESS)
    }

    /// The TC program that runs last.
    ///
    /// # Errors
    /// As [`egress`](Self::egress).
    pub fn egress_last(&mut self) -> Result<&mut SchedClassifier, Failure> {
        program(&mut self.sending, EGRESS_LAST)
    }

    /// The kernel's numbers of both TC programs.
    ///
    /// # Errors
    /// When it does not tell.
    pub fn egress_ids(&mut self) -> Result<ProgramIds, Failure> {
        let id = |program: &SchedClassifier| program.info().map(|info| info.id());
        let egress = id(self.egress()?).context("the egress program is not loaded")?;
        let last = id(self.egress_last()?).context("the copy of it is not loaded")?;

        Ok(ProgramIds {
            egress,
            last,
            earlier: Vec::new(),
        })
    }

    /// Closes the maps, which the programs hold from now on. Loading takes them, and attaching does
    /// not.
    pub fn close_maps(&mut self) {
        // The thread that loads the XDP program closes those of that.
        close_maps(&mut self.sending);
    }

    /// The maps as the kernel describes them.
    pub fn maps(&self) -> impl Iterator<Item = (&str, MapInfo)> {
        self.sending
            .maps()
            .filter_map(|(name, map)| Some((name, data(map)?.info().ok()?)))
    }

    /// Loads the program that tells the time.
    ///
    /// # Errors
    /// When the kernel refuses it: exit code 77 when for want of a privilege, else 69.
    pub fn clock(&mut self) -> Result<OwnedFd, Failure> {
        let clock: &mut SchedClassifier = program(&mut self.sending, CLOCK)?;
        clock
            .load()
            .map_err(|error| refused_program(CLOCK, &error))?;
        let fd = clock.fd().map_err(|error| refused_program(CLOCK, &error))?;

        Ok(fd
            .as_fd()
            .try_clone_to_owned()
            .context("keep the program that tells the time")?)
    }
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// A loader that shares the pinned maps.
fn pinned<'a>(pins: &Pins) -> EbpfLoader<'a> {
    let mut loader = without_kernel_types();
    for name in MAPS {
        loader.map_pin_path(name, pins.map(name));
    }

    loader
}

/// Reads the object and opens or creates its maps; programs are loaded one by one.
fn load_object<'a>(
    mut loader: EbpfLoader<'a>,
    slot: &'a u32,
    max_flows: u32,
) -> Result<Ebpf, Failure> {
    loader.override_global("DEVICE", slot, true);
    for (name, _, _) in FLOW_MAPS {
        loader.map_max_entries(name, max_flows);
    }
    loader.map_max_entries("state", bloom::elements(max_flows));

    loader.load(OBJECT).map_err(refused)
}

fn load_ingress(mut ebpf: Ebpf, name: &str) -> Result<Ebpf, Failure> {
    let ingress: &mut Xdp = program(&mut ebpf, name)?;
    ingress
        .load()
        .map_err(|error| refused_program(name, &error))?;
    close_maps(&mut ebpf);

    Ok(ebpf)
}

fn close_maps(ebpf: &mut Ebpf) {
    let names: Vec<_> = ebpf.maps().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        drop(ebpf.take_map(&name));
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, Failure>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| Failure::runtime(format!("the BPF object holds no program {name}")))
}

fn refused(error: EbpfError) -> Failure {
    let permission = match &error {
        EbpfError::MapError(MapError::CreateError { io_error, .. }) => {
            matches!(io_error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
        }
        _ => false,
    };
    let failure = if permission {
        let failure = Failure::not_permitted("the kernel refuses to create the maps");
        if privileges::maps_are_locked_memory() {
            return failure.remedy(
                "run as root, or with room for locked memory (LimitMEMLOCK=infinity in a unit)",
            );
        }
        failure
    } else {
        Failure::unavailable(format!(
            "the kernel cannot hold the maps: {:#}",
            anyhow::Error::from(error)
        ))
    };
    failure.remedy("run as root, or with a smaller --max-flows if memory is short")
}

fn refused_program(name: &str, error: &ProgramError) -> Failure {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let reason = reason(&log);
            let failure = format!(
                "the kernel refuses the program {name}: {io_error}{}",
                reason.map(|line| format!(" ({line})")).unwrap_or_default()
            );
            let denied = matches!(io_error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
            if denied && !privileges::trusted_by_verifier() {
                Failure::not_permitted(failure).remedy("run as root, or grant CAP_PERFMON too")
            } else if denied && reason.is_none() {
                Failure::not_permitted(failure)
                    .remedy("run as root, on a kernel that is not locked down")
            } else {
                Failure::unavailable(failure)
                    .remedy("run Linux 5.10 or later, built with BPF and XDP")
            }
        }
        other => Failure::unavailable(format!("the kernel refuses the program {name}: {other}")),
    }
}

/// The line of the verifier's log that says what is wrong, without the statistics at its end.
fn reason(log: &str) -> Option<&str> {
    let statistics = ["processed ", "verification time ", "stack depth "];

    log.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)))
}
