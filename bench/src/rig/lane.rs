//! One contender on hosts of its own, so that contenders can take turns without being attached
//! anew.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{guard::Guard, netns::Direct};
use guard_userspace::{
    bpf::{maps::StateMemory, pins::Pins},
    host::namespace,
};

use super::{Attack, Flood, Sender, population::Population};
use crate::{
    contender::{Contender, Installed, Terms, succeed},
    programs::BenchPrograms,
    shape::Shape,
};

/// A contender, and its hosts.
pub struct Lane<'a> {
    /// Who it is.
    pub contender: Contender,
    /// Its hosts.
    pub hosts: &'a Direct,
    installed: Installed<'a>,
    _population: Option<Population>,
}

impl<'a> Lane<'a> {
    /// Installs a contender, and lets its host open flows of this family.
    pub fn new(
        contender: Contender,
        hosts: &'a Direct,
        bare: &BenchPrograms,
        terms: Terms,
        family: Option<Family>,
    ) -> Result<Self> {
        prepare(hosts)?;
        let installed = contender
            .install(hosts, bare, terms)
            .with_context(|| contender.to_string())?;
        let population = match (contender, family) {
            // Nothing would come through.
            (Contender::BareDrop | Contender::BareUdpDrop, _) | (_, None) => None,
            (_, Some(family)) => {
                let with_sockets = terms.sockets && contender == Contender::Portguard;
                Some(Population::new(hosts, family, with_sockets)?)
            }
        };
        Ok(Self {
            contender,
            hosts,
            installed,
            _population: population,
        })
    }

    /// Waits until sweeps have found the flows: before the first, every one of them is looked up, and
    /// before the third, everybody may use their ports. A reload makes the daemon sweep at once.
    pub fn settle(&self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(90);
        const SWEEPS: usize = 3;

        let Some(guard) = self.guard() else {
            return Ok(());
        };
        let namespace = self.hosts.guarded.run(namespace::name)?;
        let state = StateMemory::open(&Pins::new(guard.pins(), &namespace))?;
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..SWEEPS {
            let before = state.epoch();
            reload(guard)?;
            while state.epoch() == before || !state.filters() {
                ensure!(
                    Instant::now() < deadline,
                    "the sweeps of {} do not make the filter trusted: {}",
                    self.contender,
                    guard.said()
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// The daemon, where the contender is portguard.
    pub const fn guard(&self) -> Option<&Guard<'a>> {
        match &self.installed {
            Installed::Guard(guard) => Some(guard),
            Installed::Bare { .. } | Installed::Rules | Installed::XdpFilter { .. } => None,
        }
    }

    /// Who sends to it.
    pub const fn sender(&self) -> Sender<'a> {
        Sender::new(self.hosts)
    }

    /// As [`Sender::flood`].
    pub fn flood(&self, generator: &mut BenchPrograms, flood: &Flood, frames: u32) -> Result<f64> {
        self.sender().flood(generator, flood, frames)
    }

    /// Checks that a flood arrives while its time is taken, and that the guard decides it as it
    /// should.
    pub fn check(&self, generator: &mut BenchPrograms, attack: Attack, shape: Shape) -> Result<()> {
        /// What has not been received when the generator ends still waits in the ring between the
        /// two ends, which has 256 places (`VETH_RING_SIZE`, drivers/net/veth.c): little of this.
        const FRAMES: u32 = 20_000;

        let nearly_all = |frames: u64| frames * 100 >= u64::from(FRAMES) * 98;
        let before = self.guard().map(Guard::packets).transpose()?;
        let received = self.received()?;
        self.flood(generator, &attack.flood(shape), FRAMES)?;
        let received = self.received()? - received;
        ensure!(
            nearly_all(received),
            "{attack} ({shape}) at {}: {received} of {FRAMES} frames were received",
            self.contender
        );
        if let (Some(guard), Some(before)) = (self.guard(), before) {
            let moved = guard.packets()?.since(&before);
            let decided = moved.of(attack.outcome());
            ensure!(
                nearly_all(decided),
                "{attack} ({shape}): {decided} of {FRAMES} frames were decided as they should \
                 be:{moved}"
            );
        }
        Ok(())
    }

    /// Frames that the host's end of the link has received.
    fn received(&self) -> Result<u64> {
        const STATISTICS: &str = "/proc/thread-self/net/dev";

        let text = self.hosts.guarded.run(|| fs::read_to_string(STATISTICS));
        let text = text.context(STATISTICS)?;
        let mut lines = text.lines();
        lines
            .find_map(|line| {
                let (name, numbers) = line.split_once(':')?;
                let packets = numbers.split_whitespace().nth(1)?;
                (name.trim() == self.hosts.interface()).then(|| packets.parse().ok())?
            })
            .with_context(|| {
                format!(
                    "{STATISTICS} does not say what {} has received",
                    self.hosts.interface()
                )
            })
    }
}

/// Lets the daemon read its configuration anew, of which there is none.
fn reload(guard: &Guard<'_>) -> Result<()> {
    let pid = libc::pid_t::try_from(guard.pid())?;
    // SAFETY: the call takes no memory.
    let told = unsafe { libc::kill(pid, libc::SIGHUP) };
    ensure!(told == 0, io::Error::last_os_error());
    Ok(())
}

/// Makes the hosts ready for floods: frames are received in batches also where no XDP program is
/// attached, and senders may have any address.
fn prepare(hosts: &Direct) -> Result<()> {
    let interface = hosts.interface();
    let mut offload = hosts.guarded.command("ethtool");
    let offload = offload.args(["-K", interface, "gro", "on"]);
    succeed(offload)?;
    for interface in ["all", interface] {
        let setting = format!("net/ipv4/conf/{interface}/rp_filter");
        hosts.guarded.sysctl(&setting, "0")?;
    }
    Ok(())
}
