//! One line of what is measured by test-run: a frame, and all that decides about it.

use std::net::IpAddr;

use guard_common::{
    abi::{
        config::Config,
        device::Device,
        page::{InForce, Page},
    },
    flow::key::AddressKey,
    frame::address::{V4, V6},
    outcome::{Direction, Outcome, Verdict},
    ports::bloom::BloomFilter,
};
use guard_tests::{
    frames::Frame,
    setup::{self, Setup},
};

use crate::shape::Shape;

/// What is done to the flow maps before each round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refill {
    /// Nothing: the frame changes nothing.
    Never,
    /// Every flow is forgotten.
    Forget,
    /// Every flow is made old enough to have expired.
    Expire,
}

/// Which frames are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variety {
    /// The same all the time.
    One,
    /// Those of so many flows in turn, from the host's first port of [`FLOW_PORT`] on.
    Flows(u32),
    /// Those of unsolicited senders, to random ports of the range.
    Unsolicited,
}

/// Flows that each map has room for: the daemon's default.
pub const MAX_FLOWS: u32 = 1 << 16;
/// What the tuple filter hashes by, which is random where it has to be secret.
const SEEDS: [u64; 3] = [
    0x9e37_79b9_7f4a_7c15,
    0xbf58_476d_1ce4_e5b9,
    0x94d0_49bb_1331_11eb,
];

/// The first local port of varied flows.
pub const FLOW_PORT: u16 = 50_000;

/// What an administrator, or the host, has the programs ask before a drop.
#[derive(Clone, Copy, Default)]
struct Questions {
    flags: u32,
    trusted: &'static [(IpAddr, u32)],
}

/// Ten ports, spread over the range, none of which a single frame goes to.
const EXPOSED: [usize; 10] = [
    33_001, 36_001, 38_001, 41_001, 44_001, 47_001, 50_001, 53_001, 56_001, 59_001,
];

/// A frame, and all that decides about it.
pub struct Row {
    name: &'static str,
    outcome: Outcome,
    frame: Frame,
    shapes: Vec<Shape>,
    /// Shown to egress before.
    pub sent: Vec<Frame>,
    /// Shown to ingress before.
    pub received: Vec<Frame>,
    /// The ports, and what else the daemon configures where nobody tells it anything.
    pub setup: Setup,
    configure: fn(&mut Config),
    /// What has to be asked before a drop.
    questions: Questions,
    /// What the daemon would have said about the interface.
    pub device: Device,
    /// Whose frames are shown.
    pub variety: Variety,
    /// What happens before each round.
    pub refill: Refill,
}

/// A frame and what becomes of it when nothing has been sent.
pub fn row(name: &'static str, outcome: Outcome, frame: Frame) -> Row {
    Row {
        name,
        outcome,
        frame,
        shapes: Shape::ALL.to_vec(),
        sent: Vec::new(),
        received: Vec::new(),
        setup: Setup {
            unbroken: true,
            ..Setup::default()
        },
        configure: |_| {},
        questions: Questions::default(),
        device: setup::device(),
        variety: Variety::One,
        refill: Refill::Never,
    }
}

impl Row {
    /// After the host has sent this.
    pub fn after_sending(mut self, frame: Frame) -> Self {
        self.sent.push(frame);
        self
    }

    /// After the host has received this.
    pub fn after_receiving(mut self, frame: Frame) -> Self {
        self.received.push(frame);
        self
    }

    /// In these shapes alone.
    pub fn only(mut self, shapes: &[Shape]) -> Self {
        self.shapes = shapes.to_vec();
        self
    }

    /// With other frames each time, and this done to the flows before each round.
    pub fn varied(mut self, variety: Variety, refill: Refill) -> Self {
        (self.variety, self.refill) = (variety, refill);
        self
    }

    /// Configured otherwise.
    pub fn configured(mut self, change: fn(&mut Config)) -> Self {
        self.configure = change;
        self
    }

    /// On a host that has exempted some ports of the range.
    pub fn with_exemptions(mut self) -> Self {
        self.setup.unbroken = false;
        self
    }

    /// On a host that routes.
    pub fn routing(mut self) -> Self {
        self.device.forwards = Device::ROUTES;
        self.questions.flags |= InForce::FORWARDS;
        self
    }

    /// On a host that trusts these prefixes, which no frame comes from.
    pub fn trusting(mut self, prefixes: &'static [(IpAddr, u32)]) -> Self {
        self.questions.flags |= InForce::SOURCES;
        self.questions.trusted = prefixes;
        self
    }

    /// On a host that exposes ten ports, spread over its range.
    pub fn exposing(mut self) -> Self {
        self.questions.flags |= InForce::SPECIAL;
        self
    }

    /// On a host that guards in monitor mode.
    pub fn monitoring(mut self) -> Self {
        // Ports with sockets are special, as exposed ones are.
        self.questions.flags |= InForce::MONITOR | InForce::SPECIAL;
        self
    }

    /// What the daemon would have configured, and its first sweep.
    pub fn config(&self) -> Config {
        let mut config = self.setup.config();
        let flags = InForce::RESCUE | self.questions.flags;
        config.in_force = config.in_force.with(flags, true);
        config.filter = BloomFilter::new(SEEDS);
        config.filter.size = config.filter.size.validated();
        (self.configure)(&mut config);
        config.recorded = config.in_force;
        config
    }

    /// The page that the daemon would have filled.
    pub fn page(&self) -> Box<Page> {
        let mut page = self.setup.page();
        for &(address, length) in self.questions.trusted {
            let key = match address {
                IpAddr::V4(address) => AddressKey::new(V4::from(address.octets())),
                IpAddr::V6(address) => AddressKey::new(V6::from(address.octets())),
            };
            setup::hint(&mut page, &key, length);
        }
        if self.questions.flags & InForce::SPECIAL != 0 {
            for port in EXPOSED {
                page.ports.tcp[port / 32] &= !(1 << (port % 32));
                page.special[port / 32] |= 1 << (port % 32);
            }
        }
        page
    }

    /// What becomes of a would-be drop.
    pub fn verdict(&self) -> Verdict {
        match self.outcome.verdict() {
            Verdict::Drop if self.questions.flags & InForce::MONITOR == 0 => Verdict::Drop,
            Verdict::Drop | Verdict::Pass => Verdict::Pass,
        }
    }

    /// What is measured.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What must become of the frame.
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether every frame is a flow of its own, for which another has to go.
    pub fn fills_the_map(&self) -> bool {
        self.outcome == Outcome::PassNewFlow && self.refill == Refill::Never
    }

    /// The shapes it is measured in.
    pub fn shapes(&self) -> impl Iterator<Item = Shape> {
        let exists = |shape: &Shape| self.frame.exists_in(shape.family());
        self.shapes.iter().copied().filter(exists)
    }

    /// The bytes of the frame.
    pub fn bytes(&self, shape: Shape) -> Vec<u8> {
        let frame = shape.of(&self.frame);
        match self.outcome.direction() {
            Direction::Ingress => frame.received(shape.family()),
            Direction::Egress => frame.sent(shape.family()),
        }
    }

    /// The program that does nothing but what must become of the frame.
    pub fn bare(&self) -> &'static str {
        match (self.outcome.direction(), self.verdict()) {
            (Direction::Ingress, Verdict::Drop) => "bare_drop",
            (Direction::Ingress, Verdict::Pass) => "bare_pass",
            (Direction::Egress, _) => "bare_next",
        }
    }
}
