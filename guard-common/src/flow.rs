//! What is remembered of a flow, and how long it counts.

pub use crate::flow_cell::FlowCell;
use crate::{
    config::Timeouts,
    parse::{Transport, Tuple},
    wire::TcpFlags,
};

/// The port of DNS, in host byte order. Its flows are many and short-lived: RFC 4787, REQ-5a,
/// lets them expire early.
const DNS_PORT: u16 = 53;

/// How far a flow has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// TCP: a SYN was sent and nothing was heard yet.
    Opening = 1,
    /// TCP: both sides were heard, or the flow was picked up in its middle.
    Established = 2,
    /// UDP or UDP-Lite.
    Datagram = 3,
    /// UDP to the port of DNS.
    Dns = 4,
    /// UDP to a group, which any neighbour may answer.
    Query = 5,
}

/// Which timer a flow expires by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// A TCP SYN without an answer.
    TcpSyn,
    /// An established TCP connection.
    TcpEstablished,
    /// A TCP connection that was reset, or closed by both sides.
    TcpTransitory,
    /// UDP and UDP-Lite.
    Udp,
    /// UDP to the port of DNS.
    UdpDns,
    /// A UDP query to a group.
    Multicast,
}

impl Timer {
    /// The name of the timer on the command line, and of the state it belongs to.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpSyn => "tcp-syn",
            Self::TcpEstablished => "tcp-established",
            Self::TcpTransitory => "tcp-transitory",
            Self::Udp => "udp",
            Self::UdpDns => "udp-dns",
            Self::Multicast => "multicast",
        }
    }
}

/// The value of a flow map.
///
/// Each field is written whole and by itself, so two processors that see packets of one flow at
/// once cannot undo each other's store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Flow {
    /// When a packet last counted for the flow, in ticks.
    pub last_seen: u32,
    /// A [`Phase`].
    pub phase: u8,
    /// 1 when the peer has sent a FIN.
    pub fin_in: u8,
    /// 1 when this host has sent a FIN.
    pub fin_out: u8,
    /// 1 when a RST was the last thing seen.
    pub reset: u8,
}

const _: () = assert!(size_of::<Flow>() == 8);

impl Flow {
    /// A flow of which nothing was seen before, in this phase.
    #[inline(always)]
    pub const fn new(phase: Phase, now: u32) -> Self {
        Self {
            last_seen: now,
            phase: phase as u8,
            fin_in: 0,
            fin_out: 0,
            reset: 0,
        }
    }

    /// The flow that this host's packet opens, or `None` when such a packet opens none: a RST or
    /// a SYN-ACK answers somebody else, and must not let them in.
    #[inline(always)]
    pub fn opened_by<A>(tuple: &Tuple<A>, flags: TcpFlags, now: u32) -> Option<Self> {
        match tuple.transport {
            Transport::Tcp if flags.rst() || flags.accepts() => None,
            Transport::Tcp if flags.opens() => Some(Self::new(Phase::Opening, now)),
            Transport::Tcp => Some(Self {
                fin_out: u8::from(flags.fin()),
                ..Self::new(Phase::Established, now)
            }),
            Transport::Udp if u16::from_be(tuple.remote_port) == DNS_PORT => {
                Some(Self::new(Phase::Dns, now))
            }
            Transport::Udp | Transport::UdpLite => Some(Self::new(Phase::Datagram, now)),
        }
    }

    /// The flow of a packet for which the kernel has a connected socket, whatever this host has
    /// sent before.
    #[inline(always)]
    pub fn rescued_by<A>(tuple: &Tuple<A>, flags: TcpFlags, now: u32) -> Self {
        match tuple.transport {
            Transport::Tcp => Self {
                fin_in: u8::from(flags.fin()),
                reset: u8::from(flags.rst()),
                ..Self::new(Phase::Established, now)
            },
            Transport::Udp if u16::from_be(tuple.remote_port) == DNS_PORT => {
                Self::new(Phase::Dns, now)
            }
            Transport::Udp | Transport::UdpLite => Self::new(Phase::Datagram, now),
        }
    }

    /// The flow as one word, laid out as it is in memory on a little-endian host. A BPF program
    /// that stored the fields one by one could be refused for it: the compiler joins neighbours,
    /// and the verifier wants words on the stack at multiples of their size.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.last_seen as u64
            | (self.phase as u64) << 32
            | (self.fin_in as u64) << 40
            | (self.fin_out as u64) << 48
            | (self.reset as u64) << 56
    }

    /// The timer that runs.
    #[inline(always)]
    pub const fn timer(self) -> Timer {
        const OPENING: u8 = Phase::Opening as u8;
        const ESTABLISHED: u8 = Phase::Established as u8;
        const DNS: u8 = Phase::Dns as u8;
        const QUERY: u8 = Phase::Query as u8;
        match self.phase {
            OPENING | ESTABLISHED if self.reset != 0 || self.fin_in & self.fin_out != 0 => {
                Timer::TcpTransitory
            }
            OPENING => Timer::TcpSyn,
            ESTABLISHED => Timer::TcpEstablished,
            DNS => Timer::UdpDns,
            QUERY => Timer::Multicast,
            _ => Timer::Udp,
        }
    }

    /// Whether this stands for a query to a group, whose remote end is not known.
    #[inline(always)]
    pub const fn is_query(self) -> bool {
        self.phase == Phase::Query as u8
    }

    /// Whether the flow still counts at `now`.
    ///
    /// The subtraction saturates because another processor's clock may be a tick ahead.
    #[inline(always)]
    pub fn alive(self, now: u32, timeouts: &Timeouts) -> bool {
        now.saturating_sub(self.last_seen) <= timeouts.of(self.timer())
    }
}
