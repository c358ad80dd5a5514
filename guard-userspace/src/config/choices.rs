//! Settings that are one word out of a few; the command line and the file share the words.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Whether unsolicited packets are dropped or only counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Drop unsolicited packets
    #[default]
    Enforce,
    /// Count what would be dropped and pass everything
    Monitor,
}

/// What happens to sockets that listen on guarded ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListenersPolicy {
    /// Warn and guard, but refuse to start over one that is serving a remote peer
    #[default]
    Auto,
    /// Warn and guard
    Warn,
    /// Refuse to start
    Refuse,
    /// Open their ports while they listen
    Expose,
}

/// What a UDP packet must match to count as an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UdpFilter {
    /// The remote address and port that was sent to
    #[default]
    AddressAndPort,
    /// The remote address alone
    Address,
}

impl UdpFilter {
    /// Whether a flow admits every port of the peer's address.
    pub fn any_remote_port(self) -> bool {
        match self {
            Self::AddressAndPort => false,
            Self::Address => true,
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Only what keeps the guard from its work
    Error,
    /// Also what the administrator should look at
    #[value(alias = "warn")]
    #[serde(alias = "warn")]
    Warning,
    /// Also what it does
    #[default]
    Info,
    /// Also what it notices
    Debug,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// The words alone, with the level where it asks for attention
    #[default]
    Text,
    /// An object with time, level and message
    Json,
}

fn word(value: &impl ValueEnum, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value.to_possible_value() {
        Some(value) => f.pad(value.get_name()),
        None => Err(fmt::Error),
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        word(self, f)
    }
}

impl fmt::Display for ListenersPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        word(self, f)
    }
}

impl fmt::Display for UdpFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        word(self, f)
    }
}
