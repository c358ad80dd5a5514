//! The timers in force: those of the settings, and shorter ones while the flow maps are nearly
//! full.

use std::sync::{Mutex, PoisonError};

use guard_common::{
    flow::{
        adaptive::{Adaptive, Scale, Scales},
        timer::{FRAGMENT_MEMORY_SECONDS, Timeouts},
    },
    outcome::Protocol,
};

use crate::{bpf::maps::StateMemory, config::Settings, guard::pressure::Load};

/// What the timers in force follow from. The daemon, which reads the settings, and the sweep,
/// which knows how full the maps are, publish them by way of this, one at a time.
#[derive(Debug)]
pub struct Timers {
    hertz: u32,
    basis: Mutex<Basis>,
}

#[derive(Clone, Copy, Debug)]
struct Basis {
    configured: Timeouts,
    adaptive: Option<Adaptive>,
    scales: Scales,
}

impl Timers {
    /// The timers of `settings`, at full length, where the kernel counts `hertz` jiffies a second.
    pub fn new(settings: &Settings, hertz: u32) -> Self {
        Self {
            hertz,
            basis: Mutex::new(Basis {
                configured: configured(settings, hertz),
                adaptive: settings.adaptive_timeouts.0,
                scales: Scales::WHOLE,
            }),
        }
    }

    /// Timers at their full length, in ticks.
    pub fn configured(&self) -> Timeouts {
        self.change(None, |_| {}).configured
    }

    /// Gives `publish` other timers to put in force, as short as those before them. No other timers come
    /// between.
    pub fn reconfigure(
        &self,
        (configured, adaptive): (Timeouts, Option<Adaptive>),
        publish: impl FnOnce(Timeouts),
    ) {
        // Anyone who panicked while holding the lock has left every field whole.
        let mut basis = self.basis.lock().unwrap_or_else(PoisonError::into_inner);
        *basis = Basis {
            configured,
            adaptive,
            scales: if adaptive.is_some() {
                basis.scales
            } else {
                Scales::WHOLE
            },
        };
        publish(basis.scales.shorten(&configured, self.hertz));
    }

    /// Makes the timers as short as the fullest map of each transport asks for, and returns what
    /// they keep of their length.
    pub fn adapt(&self, loads: &[Load], state: &StateMemory) -> Scales {
        let basis = self.change(Some(state), |basis| {
            let scale = |protocol| {
                let scales = loads
                    .iter()
                    .filter(|load| load.protocol == protocol)
                    .filter_map(|load| Some(basis.adaptive?.scale(load.live, load.capacity)));
                scales.min().unwrap_or(Scale::WHOLE)
            };
            basis.scales = Scales {
                tcp: scale(Protocol::Tcp),
                udp: scale(Protocol::Udp),
            };
        });

        basis.scales
    }

    fn change(&self, state: Option<&StateMemory>, change: impl FnOnce(&mut Basis)) -> Basis {
        // Anyone who panicked while holding the lock has left every field whole.
        let mut basis = self.basis.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut basis);
        // Under the lock: nobody else's timers may come between.
        if let Some(state) = state {
            state.set_timeouts(basis.scales.shorten(&basis.configured, self.hertz));
        }

        *basis
    }
}

/// The timers of `settings`, in ticks, where the kernel counts `hertz` jiffies a second.
pub fn configured(settings: &Settings, hertz: u32) -> Timeouts {
    let ticks = |seconds| Timeouts::ticks(seconds, hertz);

    Timeouts::each(
        |timer| ticks(settings.timeout.of(timer)),
        ticks(FRAGMENT_MEMORY_SECONDS),
    )
}
