//! What the process may do.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use aya::util::KernelVersion;
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::{
    prctl,
    resource::{RLIM_INFINITY, Resource, setrlimit},
};
use procfs::ProcError;

use crate::base::failure::Failure;

/// Checks for the capabilities that loading and attaching need.
///
/// # Errors
/// Names what is missing: exit code 77.
pub fn require() -> Result<(), Failure> {
    let missing: Vec<_> = missing().iter().map(ToString::to_string).collect();
    if missing.is_empty() {
        return Ok(());
    }

    Err(
        Failure::not_permitted(format!("not permitted: {} missing", missing.join(" and ")))
            .remedy("run as root, or grant the capabilities"),
    )
}

/// Capabilities that are needed and not held.
pub fn missing() -> Vec<Capability> {
    let root = holds(Capability::CAP_SYS_ADMIN);
    [
        // Attaching to interfaces, and programs of the network kind.
        (Capability::CAP_NET_ADMIN, false),
        // Maps, programs and their ids; part of CAP_SYS_ADMIN before 5.8 and still implied by it.
        (Capability::CAP_BPF, root),
    ]
    .into_iter()
    .filter(|&(capability, implied)| !implied && !holds(capability))
    .map(|(capability, _)| capability)
    .collect()
}

/// What a guard in force needs to stay in force: to attach again what others take off, and to
/// write its maps.
///
/// The programs stay loaded, so the verifier is not asked again and `CAP_PERFMON` can go.
pub fn to_attach_again() -> [Capability; 2] {
    // A kernel that is closed to unprivileged bpf(2), as most are, wanted it for every command:
    // https://github.com/torvalds/linux/commit/c8644cd0efe7
    let bpf = if holds(Capability::CAP_BPF) {
        Capability::CAP_BPF
    } else {
        // Implies it, and is what was granted.
        Capability::CAP_SYS_ADMIN
    };

    // Filters of clsact, and what conntrack knows.
    [Capability::CAP_NET_ADMIN, bpf]
}

/// What it takes to see which sockets other processes have open: links in `/proc/PID/fd` are
/// guarded as by ptrace(2), and the folder is its owner's alone.
pub const TO_LOOK_INTO_OTHERS: [Capability; 2] =
    [Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// Gives up what it does not take to load programs while others guard: on a thread of its own, before
/// [`keep_only`] is called on the others.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_to_load() -> Result<(), Failure> {
    let [attach, bpf] = to_attach_again();
    prctl::set_no_new_privs().context("give up privileges of programs that are run")?;

    Ok(give_up(&[attach, bpf, Capability::CAP_PERFMON]).context("give up capabilities")?)
}

/// Gives up every capability but those in `kept`, for good: no program that is run later gets one
/// back either. What was not held before is not gained.
///
/// Capabilities are a thread's own. The calling thread gives them up, and those it starts
/// afterwards never have them.
///
/// # Errors
/// When the kernel refuses, or another thread of this process has more, other than the one called
/// `loading`, which gives up the rest by itself.
pub fn keep_only(kept: &[Capability], loading: Option<i32>) -> Result<(), Failure> {
    prctl::set_no_new_privs().context("give up privileges of programs that are run")?;
    give_up(kept).context("give up capabilities")?;
    check_threads(kept, loading)
}

fn give_up(kept: &[Capability]) -> Result<(), caps::errors::CapsError> {
    // Where it is not held the limit stays, and matters to nobody without new privileges.
    if holds(Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported() {
            if !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = kept
        .iter()
        .copied()
        .filter(|capability| permitted.contains(capability))
        .collect();
    // What is in force can never be more than what is permitted.
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

/// A thread that has been joined may be listed for a moment longer, with what it held.
fn check_threads(kept: &[Capability], but: Option<i32>) -> Result<(), Failure> {
    const PATIENCE: Duration = Duration::from_secs(2);

    let deadline = Instant::now() + PATIENCE;
    loop {
        match thread_above(kept, but)? {
            None => return Ok(()),
            Some(thread) if Instant::now() >= deadline => {
                return Err(Failure::runtime(format!(
                    "{thread} holds capabilities that were given up"
                )));
            }
            Some(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// A thread of this process that holds more than `kept`.
fn thread_above(kept: &[Capability], but: Option<i32>) -> anyhow::Result<Option<String>> {
    let kept = kept
        .iter()
        .fold(0, |kept, capability| kept | capability.bitmask());
    let threads = procfs::process::Process::myself()
        .and_then(|process| process.tasks())
        .context("list the threads of this process")?;
    for thread in threads {
        let status = match thread.and_then(|thread| thread.status()) {
            Ok(status) => status,
            // It has ended since it was listed.
            Err(ProcError::NotFound(_)) => continue,
            Err(error) => {
                return Err(error).context("read what a thread of this process may do");
            }
        };
        let more = (status.capprm | status.capinh | status.capamb.unwrap_or(0)) & !kept;
        if more != 0 && Some(status.pid) != but {
            return Ok(Some(format!("thread {} ({})", status.pid, status.name)));
        }
    }

    Ok(None)
}

/// Whether the verifier lets this process do what it takes for a leak of addresses otherwise.
pub fn trusted_by_verifier() -> bool {
    holds(Capability::CAP_PERFMON) || holds(Capability::CAP_SYS_ADMIN)
}

/// Whether maps are locked memory, which has a limit of its own: before Linux 5.11.
/// <https://docs.ebpf.io/linux/concepts/resource-limit/>
pub fn maps_are_locked_memory() -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(5, 11, 0))
}

fn holds(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// Lifts the limit on locked memory, which kernels before 5.11 charge maps to.
///
/// Newer kernels charge the memory cgroup instead, so a refusal here does not matter there; where
/// it does, creating the maps fails and says so.
pub fn lift_memory_limit() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}
