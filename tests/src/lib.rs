//! What the suites share.
//!
//! Modules in reading order: frames made by hand ([`frames`]), the guard they are shown to
//! ([`setup`]), the table of verdicts that reads as the specification ([`cases`]), one frame with
//! each kind of header ([`headers`]), and the two things they are tried on: the packet logic over
//! tables in [`memory`], and the loaded [`programs`]; and maps without programs ([`pinned`]). Then
//! the same on real interfaces: hosts and links ([`netns`]), programs of somebody else there
//! ([`neighbour`]), frames and listeners ([`wire`]), both
//! ends of a conversation ([`peers`], [`sent`]), traffic beside what is tested ([`load`]), what the daemon
//! measures ([`metrics`]) and the daemon itself ([`guard`]), step by step ([`steps`]) and sweep by sweep
//! ([`sweeps`]), and where it
//! must refuse ([`bad_input`]). Then the policy told a second time, and compared
//! ([`differential`]), the kernel as the oracle ([`oracle`]), and last, loads that go on for long ([`soak`]).

pub use guard_model::{frames, memory, setup};

pub mod cases;
pub mod headers;

pub mod mutations;

pub mod build;
pub mod kernel;
pub mod processors;
pub mod rounds;
pub mod scratch;

pub mod bpffs;
pub mod pinned;
pub mod programs;

pub mod cards;
pub mod mode;
pub mod neighbour;
pub mod netns;
pub mod wire;

pub mod crowd;
pub mod load;
pub mod peers;
pub mod sent;

pub mod metrics;

pub mod capabilities;
pub mod guard;
pub mod refused;
pub mod steps;
pub mod sweeps;

pub mod bad_input;

pub mod clients;

pub mod differential;

pub mod oracle;

pub mod soak;
