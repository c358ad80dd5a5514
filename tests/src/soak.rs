//! Loads that go on for long, in two sizes, and what becomes of them.
//!
//! `cargo xtask test` runs the scenarios of the suite `soak` in their short size, `cargo xtask
//! soak` in full. Modules in reading order: how much is to be done ([`Budget`]), servers
//! ([`Farm`]) and the clients that use them once ([`connect`], [`query`]), connections that stay
//! silent ([`Idle`]), an [`UnsolicitedSender`] and a [`scan`] with frames made from a [`Template`], what gets past the guard ([`Tap`]), and what
//! the daemon takes of the machine ([`Footprint`]).

mod budget;

mod cycles;
mod farm;
mod idle;

mod spray;
mod template;

mod tap;

mod footprint;

use std::{env, fmt, time::Duration};

use guard_common::outcome::Outcome;

use crate::metrics::Packets;

pub use self::{
    budget::Budget,
    cycles::{LATE, Tally, connect, query},
    farm::Farm,
    footprint::Footprint,
    idle::{Idle, allow_open_files},
    spray::{UnsolicitedSender, scan},
    tap::Tap,
    template::Template,
};

/// `full`, where the whole of a scenario is to be run.
const SIZE_VARIABLE: &str = "PORTGUARD_SOAK";
/// How many seconds a scenario is to take that can take any.
const SECONDS_VARIABLE: &str = "PORTGUARD_SOAK_SECONDS";

/// How much of a scenario is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// Seconds: enough to see it break.
    Short,
    /// Minutes: as the acceptance matrix has it.
    Full,
}

impl Size {
    /// The one that was asked for.
    pub fn asked() -> Self {
        match env::var(SIZE_VARIABLE).as_deref() {
            Ok("full") => Self::Full,
            Ok(_) | Err(_) => Self::Short,
        }
    }

    /// What belongs to this size.
    pub fn choose<T>(self, short: T, full: T) -> T {
        match self {
            Self::Short => short,
            Self::Full => full,
        }
    }

    /// How long this size takes where somebody has said so.
    pub fn seconds(self) -> Option<Duration> {
        let seconds = env::var(SECONDS_VARIABLE).ok()?;
        let seconds = seconds.parse().expect("a number of seconds");
        self.choose(None, Some(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.choose("short", "full"))
    }
}

/// What became of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Connections and queries that were made, and idle ends that were spoken to.
    pub made: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Those that took so long that a packet of theirs must have been lost, and sent again.
    pub late: u64,
    /// How long the slowest one took that did not fail.
    pub worst: Duration,
    /// Packets that passed because the kernel had their socket.
    pub rescued: u64,
    /// Frames that the guard has dropped as answering nothing.
    pub dropped: u64,
    /// Frames of an unsolicited sender to guarded ports, of which the guard may have seen fewer.
    pub strange: u64,
    /// Those of them that got past the guard.
    pub leaked: u64,
    /// How long it all took.
    pub took: Duration,
}

impl Figures {
    /// With what a guard has counted meanwhile.
    #[must_use]
    pub fn counted(self, packets: &Packets) -> Self {
        Self {
            rescued: packets.of(Outcome::PassRescued),
            dropped: packets.of(Outcome::DropNoFlow),
            ..self
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            made,
            failed,
            late,
            worst,
            rescued,
            dropped,
            strange,
            leaked,
            took,
        } = self;
        write!(
            f,
            "{made} made, {failed} failed, {late} late (worst {} ms), {rescued} rescued, \
             {dropped} dropped, {leaked} of {strange} strange frames leaked, {:.1} s",
            worst.as_millis(),
            took.as_secs_f32(),
        )
    }
}
