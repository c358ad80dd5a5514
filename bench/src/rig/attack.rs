//! What is sent.

use std::fmt;

use guard_common::outcome::{Direction, Outcome, Verdict};
use guard_tests::{
    frames::{Frame, P, tcp, udp},
    setup::{FIRST, LAST},
};
use serde::Serialize;

use super::population::{ANSWERED_PORT, ANSWERING_PORT, FLOW_PORT, FLOWS};
use crate::{contender::Contender, fields, recipe::Recipe, shape::Shape};

/// A flood.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Unsolicited senders, to random ports of the range.
    Spray,
    /// Unsolicited senders' UDP, to ports that live flows use.
    UsedUdp,
    /// Unsolicited senders' SYNs, to ports that live flows use.
    UsedSyn,
    /// Unsolicited senders' segments of connections that nobody has, to ports that live flows use.
    UsedAck,
    /// Later fragments of datagrams that have no first one.
    LaterFragments,
    /// Answers to what the host has sent.
    Solicited,
    /// A spray with 1 % of answers in it.
    Mixed,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Spray,
        Self::UsedUdp,
        Self::UsedSyn,
        Self::UsedAck,
        Self::LaterFragments,
        Self::Solicited,
        Self::Mixed,
    ];

    /// What portguard makes of most of its frames.
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Spray | Self::UsedUdp | Self::UsedSyn | Self::UsedAck | Self::Mixed => {
                Outcome::DropNoFlow
            }
            Self::LaterFragments => Outcome::PassLaterFragment,
            Self::Solicited => Outcome::PassKnownFlow,
        }
    }

    /// What could not be faster.
    pub const fn limit(self) -> Contender {
        match self.outcome().verdict() {
            Verdict::Drop => Contender::BareDrop,
            Verdict::Pass => Contender::BarePass,
        }
    }

    /// Whether a contender treats these frames as portguard does, and so can be compared. Rules
    /// without conntrack let in segments that open nothing, and drop answers from uncommon ports;
    /// xdp-filter drops all answers.
    pub fn is_treated_alike(self, contender: Contender) -> bool {
        match contender {
            Contender::BareDrop | Contender::BarePass => contender == self.limit(),
            Contender::BareUdpDrop => matches!(self, Self::Spray | Self::UsedUdp),
            Contender::Portguard
            | Contender::PortguardClsact
            | Contender::PortguardGeneric
            | Contender::PortguardForwarding
            | Contender::PortguardTrusting
            | Contender::PortguardExposing
            | Contender::PortguardAsking
            | Contender::PortguardMonitoring
            | Contender::NftInput
            | Contender::NftPrerouting
            | Contender::IptablesInput => true,
            Contender::NftIngress | Contender::IptablesRaw => match self {
                Self::Spray | Self::UsedUdp | Self::UsedSyn | Self::LaterFragments => true,
                Self::UsedAck | Self::Solicited | Self::Mixed => false,
            },
            Contender::XdpFilter => match self {
                Self::Spray | Self::UsedUdp | Self::UsedSyn | Self::UsedAck => true,
                Self::LaterFragments | Self::Solicited | Self::Mixed => false,
            },
        }
    }

    fn template(self) -> Frame {
        match self {
            Self::Spray | Self::UsedUdp | Self::Solicited | Self::Mixed => {
                udp(ANSWERING_PORT, ANSWERED_PORT)
            }
            Self::UsedSyn => tcp(ANSWERING_PORT, ANSWERED_PORT).syn(),
            Self::UsedAck => tcp(ANSWERING_PORT, ANSWERED_PORT),
            Self::LaterFragments => udp(ANSWERING_PORT, ANSWERED_PORT).piece(7, 8..),
        }
    }

    /// Of 65,536 frames, so many are answers.
    const fn answers(self) -> u32 {
        match self {
            Self::Spray | Self::UsedUdp | Self::UsedSyn | Self::UsedAck | Self::LaterFragments => 0,
            Self::Solicited => Recipe::ALL,
            Self::Mixed => Recipe::ALL / 100,
        }
    }

    /// The first of the ports that unsolicited senders aim at, and how many these are.
    fn aim(self) -> (u16, u32) {
        match self {
            Self::UsedUdp | Self::UsedSyn | Self::UsedAck => (FLOW_PORT, FLOWS),
            Self::Spray | Self::LaterFragments | Self::Solicited | Self::Mixed => {
                (FIRST, u32::from(LAST - FIRST) + 1)
            }
        }
    }

    /// Its frames.
    pub fn flood(self, shape: Shape) -> Flood {
        let frame = shape.of(&self.template()).received(shape.family());
        let (unsolicited_port, unsolicited_ports) = self.aim();
        let recipe = Recipe {
            known_share: self.answers(),
            flows: FLOWS,
            flow_ports: 1,
            flow_port: u32::from(ANSWERED_PORT),
            remote_port: u32::from(ANSWERING_PORT),
            remote_address: fields::last_word(P.address(shape.family())),
            unsolicited_port: u32::from(unsolicited_port),
            unsolicited_ports,
            ..fields::of(&frame, Direction::Ingress)
        };
        Flood { frame, recipe }
    }
}

/// The frames of a flood.
#[derive(Clone, Debug)]
pub struct Flood {
    /// What the generator starts from.
    pub frame: Vec<u8>,
    /// What it writes over each.
    pub recipe: Recipe,
}

impl Flood {
    /// Its unsolicited senders aim at these ports.
    #[must_use]
    pub fn at(mut self, port: u16, ports: u32) -> Self {
        self.recipe.unsolicited_port = u32::from(port);
        self.recipe.unsolicited_ports = ports;
        self
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spray => "spray at random ports",
            Self::UsedUdp => "UDP at ports in use",
            Self::UsedSyn => "SYN at ports in use",
            Self::UsedAck => "ACK at ports in use",
            Self::LaterFragments => "later fragments",
            Self::Solicited => "solicited replies",
            Self::Mixed => "spray, 1 % solicited",
        })
    }
}
