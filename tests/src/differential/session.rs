//! One guard's life: how it is set up, and what happens to it.

use guard_reference::{
    memory::Purpose,
    policy::{Host, Policy},
};

/// One guard's life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// What the user has asked for at first.
    pub policy: Policy,
    /// The host around the guard.
    pub host: Host,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The interface receives a frame.
    Receive(Vec<u8>),
    /// The interface sends a frame of this host.
    Send(Vec<u8>),
    /// The interface sends a frame that another interface has received.
    Forward(Vec<u8>),
    /// So many ticks pass.
    Wait(u32),
    /// Another processor's clock was so many ticks ahead.
    Back(u32),
    /// So many sweeps complete, none of which finds a port in use.
    Sweep(u8),
    /// A port was last in use so many epochs after the present one.
    Mark(Purpose, u16, u8),
    /// The user asks for something else.
    Reload(Box<Policy>),
}

impl Step {
    /// The frame, where the step is one.
    pub fn frame(&self) -> Option<&[u8]> {
        match self {
            Self::Receive(frame) | Self::Send(frame) | Self::Forward(frame) => Some(frame),
            Self::Wait(_) | Self::Back(_) | Self::Sweep(_) | Self::Mark(..) | Self::Reload(_) => {
                None
            }
        }
    }

    /// The same step with another frame.
    #[must_use]
    pub fn with_frame(&self, frame: Vec<u8>) -> Self {
        match self {
            Self::Receive(_) => Self::Receive(frame),
            Self::Send(_) => Self::Send(frame),
            Self::Forward(_) => Self::Forward(frame),
            Self::Wait(_) | Self::Back(_) | Self::Sweep(_) | Self::Mark(..) | Self::Reload(_) => {
                self.clone()
            }
        }
    }
}
