//! The user side of portguard: loads and attaches the kernel programs, keeps them in step with
//! the kernel's port range, and reports.
//!
//! Modules in reading order: the command line and what it means ([`cli`], [`settings`],
//! [`text`], [`failure`], [`aside`], [`descriptors`]), what is on this host ([`range`], [`dump`], [`interfaces`], [`sockets`], [`sysctl_d`],
//! [`conntrack`], [`kernel_ports`], [`listeners`], [`namespace`], [`privileges`]), the kernel programs and their
//! maps ([`bpf`], [`pins`], [`programs`], [`maps`], [`clock`], [`driver`], [`attach`], [`alarm`], [`evidence`], [`guard`], [`seed`],
//! [`repair`], [`reclaim`], [`pressure`], [`timers`], [`sweep`]), and the daemon around them
//! ([`lock`], [`log`], [`observation`], [`observer`], [`metrics`], [`serve`], [`control`],
//! [`report`], [`workings`], [`daemon`], [`process`]). Commands that need no daemon come last
//! ([`check`], [`detach`], [`harden`], [`audit`]).

pub mod aside;
pub mod cli;
pub mod descriptors;
pub mod failure;
pub mod settings;
pub mod text;

pub mod conntrack;
pub mod dump;
pub mod features;
pub mod interfaces;
pub mod kernel_ports;
pub mod listeners;
pub mod namespace;
pub mod owners;
pub mod privileges;
pub mod range;
pub mod sockets;
pub mod sysctl_d;

pub mod attach;
pub mod bpf;
pub mod clock;
pub mod driver;
pub mod maps;
pub mod pins;
pub mod programs;

pub mod alarm;
pub mod attachment;
pub mod evidence;
pub mod guard;
pub mod pressure;
pub mod reclaim;
pub mod repair;
pub mod seed;
pub mod sweep;
pub mod timers;

pub mod lock;
pub mod log;

pub mod observation;
pub mod observer;

pub mod metrics;
pub mod serve;

pub mod control;
pub mod report;

pub mod workings;

pub mod daemon;
pub mod process;

pub mod audit;
pub mod check;
pub mod detach;
pub mod harden;

#[cfg(any(test, fuzzing))]
pub mod fuzzed;
