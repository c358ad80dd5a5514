//! From a session that fails to a smaller one that fails.

use guard_reference::policy::Policy;

use super::{
    found,
    session::{Session, Step},
};

/// Sessions that are tried at most.
const TRIES: usize = 20_000;

/// Makes a session smaller as long as it `fails`, which is asked of each smaller one.
pub fn shrink(session: Session, fails: impl FnMut(&Session) -> bool) -> Session {
    let mut shrinker = Shrinker {
        session,
        fails,
        tries: TRIES,
    };
    loop {
        let before = shrinker.session.clone();
        shrinker.fewer_steps();
        shrinker.fewer_waits();
        shrinker.plainer_frames();
        shrinker.plainer_guard();
        if shrinker.session == before || shrinker.tries == 0 {
            return before;
        }
    }
}

struct Shrinker<F> {
    session: Session,
    fails: F,
    tries: usize,
}

impl<F: FnMut(&Session) -> bool> Shrinker<F> {
    /// Keeps a smaller session if it fails too.
    fn keep(&mut self, smaller: Session) -> bool {
        if self.tries == 0 || smaller == self.session {
            return false;
        }
        self.tries -= 1;
        let fails = (self.fails)(&smaller);
        if fails {
            self.session = smaller;
        }
        fails
    }

    fn fewer_steps(&mut self) {
        let mut length = self.session.steps.len();
        while length > 0 {
            let mut at = self.session.steps.len();
            while at > 0 {
                let start = at.saturating_sub(length);
                let mut smaller = self.session.clone();
                smaller.steps.drain(start..at);
                self.keep(smaller);
                at = start;
            }
            length /= 2;
        }
    }

    /// Two waits are one.
    fn fewer_waits(&mut self) {
        let mut index = 1;
        while index < self.session.steps.len() {
            let steps = &self.session.steps;
            let (Step::Wait(one), Step::Wait(other)) = (&steps[index - 1], &steps[index]) else {
                index += 1;
                continue;
            };
            let mut smaller = self.session.clone();
            smaller.steps[index] = Step::Wait(one + other);
            smaller.steps.remove(index - 1);
            if !self.keep(smaller) {
                index += 1;
            }
        }
    }

    fn plainer_frames(&mut self) {
        for index in 0..self.session.steps.len() {
            self.plainer_step(index);
            if self.session.steps[index].frame().is_none() {
                continue;
            }
            self.without_tags(index);
            self.shorter(index);
            self.with_zeroes(index);
        }
    }

    fn replace(&mut self, index: usize, step: Step) -> bool {
        let mut smaller = self.session.clone();
        smaller.steps[index] = step;
        self.keep(smaller)
    }

    fn plainer_step(&mut self, index: usize) {
        match self.session.steps[index].clone() {
            Step::Forward(frame) => {
                self.replace(index, Step::Send(frame));
            }
            Step::Wait(ticks) => {
                for fewer in [1, ticks / 2, ticks.saturating_sub(1)] {
                    self.replace(index, Step::Wait(fewer));
                }
            }
            Step::Sweep(_) => {
                self.replace(index, Step::Sweep(1));
            }
            Step::Receive(_) | Step::Send(_) | Step::Back(_) | Step::Mark(..) | Step::Reload(_) => {
            }
        }
    }

    fn edit(&mut self, index: usize, edit: impl FnOnce(&mut Vec<u8>)) -> bool {
        let step = &self.session.steps[index];
        let Some(frame) = step.frame() else {
            return false;
        };
        let mut frame = frame.to_vec();
        edit(&mut frame);
        let step = step.with_frame(frame);
        self.replace(index, step)
    }

    fn without_tags(&mut self, index: usize) {
        const TAG: std::ops::Range<usize> = 12..16;

        let is_tagged = |frame: &[u8]| {
            frame.len() > TAG.end && matches!(frame[TAG.start..], [0x81, 0, ..] | [0x88, 0xa8, ..])
        };
        while self.session.steps[index].frame().is_some_and(is_tagged)
            && self.edit(index, |frame| drop(frame.drain(TAG)))
        {}
    }

    fn shorter(&mut self, index: usize) {
        const SHORTEST: usize = 14;

        let length = |session: &Session| session.steps[index].frame().map_or(0, <[u8]>::len);
        let mut cut = length(&self.session);
        while cut > 0 {
            while length(&self.session) >= SHORTEST + cut
                && self.edit(index, |frame| frame.truncate(frame.len() - cut))
            {}
            cut /= 2;
        }
    }

    fn with_zeroes(&mut self, index: usize) {
        let length = self.session.steps[index].frame().map_or(0, <[u8]>::len);
        for at in 0..length.min(200) {
            self.edit(index, |frame| frame[at] = 0);
        }
    }

    fn plainer_guard(&mut self) {
        let plain = found::plain();
        for change in POLICIES {
            let mut smaller = self.session.clone();
            change(&mut smaller.policy, &plain.policy);
            for step in &mut smaller.steps {
                if let Step::Reload(policy) = step {
                    change(policy, &plain.policy);
                }
            }
            self.keep(smaller);
        }
        for change in HOSTS {
            let mut smaller = self.session.clone();
            change(&mut smaller, &plain);
            self.keep(smaller);
        }
    }
}

/// What makes a policy plainer, one thing at a time.
const POLICIES: [fn(&mut Policy, &Policy); 11] = [
    |policy, plain| policy.range = plain.range,
    |policy, plain| policy.reserved.clone_from(&plain.reserved),
    |policy, plain| policy.exposed_tcp.clone_from(&plain.exposed_tcp),
    |policy, plain| policy.exposed_udp.clone_from(&plain.exposed_udp),
    |policy, plain| policy.kernel.clone_from(&plain.kernel),
    |policy, plain| policy.unrecorded.clone_from(&plain.unrecorded),
    |policy, plain| policy.by_address = plain.by_address,
    |policy, plain| policy.rescue = plain.rescue,
    |policy, plain| policy.monitor = plain.monitor,
    |policy, plain| policy.trusted.clone_from(&plain.trusted),
    |policy, plain| policy.timers = plain.timers,
];

/// What makes a host plainer.
const HOSTS: [fn(&mut Session, &Session); 5] = [
    |session, plain| session.host.addresses.clone_from(&plain.host.addresses),
    |session, plain| session.host.some_forward = plain.host.some_forward,
    |session, plain| session.host.local_table.clone_from(&plain.host.local_table),
    |session, plain| {
        session.host.router = plain.host.router;
        session.host.carries = plain.host.carries;
        session.host.shares = plain.host.shares;
        session.host.routing = plain.host.routing;
    },
    |session, plain| session.host.room = plain.host.room,
];
