//! Sessions as rows to be kept: printed when one fails, and read back.

mod print;

use anyhow::{Result, ensure};
use guard_reference::{
    decision::Decision,
    memory::Purpose,
    model::Model,
    policy::{Host, Policy, Prefix, Timers},
};

use super::{
    places,
    session::{Session, Step},
};

/// When a row begins: far from 0, so that flows can be aged.
const START: u32 = 1 << 24;

/// A session that once showed a mistake, and what is due of each of its frames.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it is about.
    pub name: &'static str,
    /// The session.
    pub session: Session,
    /// For each step, the reason that is due, where the step is a frame.
    pub due: Vec<Option<&'static str>>,
}

/// The plainest guard, to which nothing happens.
pub fn plain() -> Session {
    Session {
        policy: Policy {
            range: (32_768, 60_999),
            reserved: Vec::new(),
            exposed_tcp: Vec::new(),
            exposed_udp: Vec::new(),
            kernel: Vec::new(),
            unrecorded: vec![4789, 8472, 6081],
            by_address: false,
            rescue: true,
            monitor: false,
            trusted: Vec::new(),
            timers: Timers {
                tcp_syn: 10,
                tcp_established: 50,
                tcp_transitory: 12,
                udp: 30,
                udp_dns: 8,
                multicast: 6,
                fragment: 7,
            },
        },
        host: Host {
            addresses: prefixes(&["10.9.0.2/24", "fd09::2/64"]),
            router: false,
            carries: false,
            shares: false,
            own_links: places::OWN_LINKS.to_vec(),
            some_forward: false,
            local_table: Vec::new(),
            diverted: Vec::new(),
            routing: (false, false),
            delivered: places::DELIVERED.to_vec(),
            routes: places::ROUTES.to_vec(),
            sockets: places::sockets(),
            room: true,
        },
        steps: Vec::new(),
    }
}

/// A row that nothing happens in yet, to the plainest guard.
pub fn found(name: &'static str) -> Found {
    Found {
        name,
        session: plain(),
        due: Vec::new(),
    }
}

/// Prefixes, as they are written.
///
/// # Panics
///
/// When one of them is none.
pub fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    let prefix = |text: &&str| {
        let (address, bits) = text.split_once('/').expect("a prefix has a length");
        Prefix {
            address: address.parse().expect("a prefix has an address"),
            bits: bits.parse().expect("a length is a number"),
        }
    };
    texts.iter().map(prefix).collect()
}

impl Found {
    /// To a guard with this policy.
    #[must_use]
    pub fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.session.policy);
        self
    }

    /// To a guard on this host.
    #[must_use]
    pub fn host(mut self, change: impl FnOnce(&mut Host)) -> Self {
        change(&mut self.session.host);
        self
    }

    /// The interface receives these bytes, which is due to be called so.
    #[must_use]
    pub fn receives(self, bytes: &str, due: &'static str) -> Self {
        self.step(Step::Receive(unhex(bytes)), Some(due))
    }

    /// The interface sends these bytes of this host.
    #[must_use]
    pub fn sends(self, bytes: &str, due: &'static str) -> Self {
        self.step(Step::Send(unhex(bytes)), Some(due))
    }

    /// The interface sends these bytes, which another interface has received.
    #[must_use]
    pub fn forwards(self, bytes: &str, due: &'static str) -> Self {
        self.step(Step::Forward(unhex(bytes)), Some(due))
    }

    /// So many ticks pass.
    #[must_use]
    pub fn waits(self, ticks: u32) -> Self {
        self.step(Step::Wait(ticks), None)
    }

    /// Another processor's clock was so many ticks ahead.
    #[must_use]
    pub fn goes_back(self, ticks: u32) -> Self {
        self.step(Step::Back(ticks), None)
    }

    /// So many sweeps find no port in use.
    #[must_use]
    pub fn sweeps(self, sweeps: u8) -> Self {
        self.step(Step::Sweep(sweeps), None)
    }

    /// A port was last in use so many epochs after the present one.
    #[must_use]
    pub fn marks(self, purpose: Purpose, port: u16, epochs: u8) -> Self {
        self.step(Step::Mark(purpose, port, epochs), None)
    }

    /// The user asks for this, and for what is usual else.
    #[must_use]
    pub fn reloads(self, change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = plain().policy;
        change(&mut policy);
        self.step(Step::Reload(Box::new(policy)), None)
    }

    /// Fails where the reference says anything else than the row.
    pub fn is_due(&self) -> Result<()> {
        let session = &self.session;
        let mut model = Model::new(session.policy.clone(), session.host.clone(), START);
        for (number, (step, due)) in session.steps.iter().zip(&self.due).enumerate() {
            let decision = take(&mut model, step).map(|decision| decision.reason.name());
            ensure!(
                decision == *due,
                "{}, step {number}: {decision:?} by the reference, {due:?} by the row",
                self.name
            );
        }
        Ok(())
    }

    fn step(mut self, step: Step, due: Option<&'static str>) -> Self {
        self.session.steps.push(step);
        self.due.push(due);
        self
    }
}

/// One step of the reference, and its assessment where the step is a frame.
pub fn take(model: &mut Model, step: &Step) -> Option<Decision> {
    match step {
        Step::Receive(frame) => return Some(model.receive(frame)),
        Step::Send(frame) => return Some(model.send(frame, false)),
        Step::Forward(frame) => return Some(model.send(frame, true)),
        Step::Wait(ticks) => model.now = model.now.wrapping_add(*ticks),
        Step::Back(ticks) => model.now = model.now.wrapping_sub(*ticks),
        Step::Sweep(sweeps) => model.epoch = model.epoch.wrapping_add(*sweeps),
        Step::Mark(purpose, port, epochs) => {
            let epoch = model.epoch.wrapping_add(*epochs);
            model.memory.occupancy.insert((*purpose, *port), epoch);
        }
        Step::Reload(policy) => model.policy = (**policy).clone(),
    }
    None
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("frames are hexadecimal");
            u8::from_str_radix(pair, 16).expect("frames are hexadecimal")
        })
        .collect()
}
