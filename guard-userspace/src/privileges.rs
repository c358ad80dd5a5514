//! What the process may do.

use caps::{CapSet, Capability};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use crate::failure::Failure;

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

/// Whether the verifier lets this process do what it takes for a leak of addresses otherwise.
pub fn trusted_by_verifier() -> bool {
    holds(Capability::CAP_PERFMON) || holds(Capability::CAP_SYS_ADMIN)
}

/// Whether this process may see what files others have open.
pub fn may_look_into_others() -> bool {
    holds(Capability::CAP_SYS_PTRACE)
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
