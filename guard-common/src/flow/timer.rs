//! The timers of flows, and how long each runs.

use crate::outcome::Protocol;

/// The one list of timers: variant, field, protocol, name, seconds unless configured, seconds below
/// which a full map does not shorten it.
macro_rules! timers {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident, $field:ident, $protocol:ident, $name:literal, $default:literal, $least:literal;
    )+) => {
        /// Which timer a flow expires by.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Timer {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Timer {
            /// Every timer.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The names of all timers, in the same order.
            pub const NAMES: &[&str] = &[$($name),+];

            /// The name of the timer on the command line, and of the state it belongs to.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Seconds for which it runs unless the administrator says otherwise: at least what
            /// RFC 5382 (REQ-5) and RFC 4787 (REQ-5) ask of a NAT.
            pub const fn default_seconds(self) -> u32 {
                match self {
                    $(Self::$variant => $default,)+
                }
            }

            /// Seconds below which it is not shortened where maps fill. Configured ones may be
            /// shorter.
            pub const fn least_seconds(self) -> u32 {
                match self {
                    $(Self::$variant => $least,)+
                }
            }

            /// TCP, or UDP together with UDP-Lite.
            pub const fn protocol(self) -> Protocol {
                match self {
                    $(Self::$variant => Protocol::$protocol,)+
                }
            }
        }

        /// How long flows live after the last packet that counted, in ticks.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(C)]
        pub struct Timeouts {
            $(
                #[doc = concat!("[`Timer::", stringify!($variant), "`].")]
                pub $field: u32,
            )+
            /// How long later fragments of a refused first one are refused.
            pub fragment: u32,
        }

        impl Timeouts {
            /// All lengths, in the order in which they lie in memory.
            pub const fn words(&self) -> [u32; Timer::ALL.len() + 1] {
                [$(self.$field,)+ self.fragment]
            }

            /// The timers whose lengths lie in memory like this.
            pub const fn of_words(words: [u32; Timer::ALL.len() + 1]) -> Self {
                let [$($field,)+ fragment] = words;

                Self {
                    $($field,)+
                    fragment,
                }
            }

            /// Timers of these lengths, and this one for fragments.
            pub fn each(mut length: impl FnMut(Timer) -> u32, fragment: u32) -> Self {
                Self {
                    $($field: length(Timer::$variant),)+
                    fragment,
                }
            }

            /// The length of one timer.
            #[inline(always)]
            pub const fn of(&self, timer: Timer) -> u32 {
                match timer {
                    $(Timer::$variant => self.$field,)+
                }
            }
        }
    };
}

timers! {
    /// A TCP SYN without an answer.
    TcpSyn, tcp_syn, Tcp, "tcp-syn", 240, 0;
    /// An established TCP connection. Never under RFC 5382, REQ-5: two hours and four minutes.
    /// Connections without a socket here, such as masqueraded ones, have nothing but their timer.
    TcpEstablished, tcp_established, Tcp, "tcp-established", 7_440, 7_440;
    /// A TCP connection that was reset, or closed by both sides.
    TcpTransitory, tcp_transitory, Tcp, "tcp-transitory", 240, 0;
    /// UDP and UDP-Lite. Never under RFC 4787, REQ-5: two minutes.
    Udp, udp, Udp, "udp", 300, 120;
    /// UDP to the port of DNS: REQ-5a lets well-known ports have less.
    UdpDns, udp_dns, Udp, "udp-dns", 60, 0;
    /// A UDP query to a group.
    Multicast, multicast, Udp, "multicast", 30, 0;
}

impl Timeouts {
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
