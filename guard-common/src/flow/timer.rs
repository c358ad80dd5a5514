//! The timers of flows, and how long each runs.

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

/// How long flows live after the last packet that counted, in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Timeouts {
    /// [`Timer::TcpSyn`].
    pub tcp_syn: u32,
    /// [`Timer::TcpEstablished`].
    pub tcp_established: u32,
    /// [`Timer::TcpTransitory`].
    pub tcp_transitory: u32,
    /// [`Timer::Udp`].
    pub udp: u32,
    /// [`Timer::UdpDns`].
    pub udp_dns: u32,
    /// [`Timer::Multicast`].
    pub multicast: u32,
    /// How long later fragments of a refused first one are refused.
    pub fragment: u32,
}

impl Timeouts {
    /// The length of one timer.
    #[inline(always)]
    pub const fn of(&self, timer: Timer) -> u32 {
        match timer {
            Timer::TcpSyn => self.tcp_syn,
            Timer::TcpEstablished => self.tcp_established,
            Timer::TcpTransitory => self.tcp_transitory,
            Timer::Udp => self.udp,
            Timer::UdpDns => self.udp_dns,
            Timer::Multicast => self.multicast,
        }
    }

    /// The length of a timer of `seconds` where the kernel counts `hertz` jiffies a second.
    ///
    /// The age of a flow in whole ticks may read one too many, so a timer has one more.
    pub const fn ticks(seconds: u32, hertz: u32) -> u32 {
        let ticks = (seconds as u64 * hertz as u64) >> JIFFIES_PER_TICK_SHIFT;
        if ticks >= u32::MAX as u64 {
            u32::MAX
        } else {
            ticks as u32 + 1
        }
    }
}

/// Jiffies are shifted right by this to make a tick: 0.256 s at 250 Hz, 0.064 s at 1,000 Hz,
/// 0.64 s at 100 Hz.
///
/// A tick must be well under a second, because a timer is only as exact as one; and as long as
/// possible, because a busy flow is written once a tick. As 32 bits they last eight years at
/// 1,000 Hz.
pub const JIFFIES_PER_TICK_SHIFT: u32 = 6;

/// Seconds for which a refused first fragment is remembered: `IP_FRAG_TIME`, include/net/ip.h.
pub const FRAGMENT_MEMORY_SECONDS: u32 = 30;
