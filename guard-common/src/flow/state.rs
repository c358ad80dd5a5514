//! What is kept of a flow, how packets change it, and how long it counts.

use core::cell::UnsafeCell;

use crate::{
    flow::timer::{Timeouts, Timer},
    frame::{headers::TcpFlags, ip::Tuple, transport::Transport},
};

/// The port of DNS, in host byte order. Its flows are many and short-lived: RFC 4787, REQ-5a,
/// lets them expire early.
const DNS_PORT: u16 = 53;

/// How far a flow has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Phase {
    /// TCP: a SYN was sent and no answer has come yet.
    Opening = 1,
    /// TCP: both sides have sent, or the flow was first seen in its middle.
    Established = 2,
    /// UDP or UDP-Lite.
    Datagram = 3,
    /// UDP to the port of DNS.
    Dns = 4,
    /// UDP to a multicast or broadcast address, which any neighbour may answer.
    Multicast = 5,
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
    /// a SYN-ACK answers an unsolicited packet, and must not let its sender in.
    #[inline(always)]
    pub fn opened_by<A>(tuple: &Tuple<A>, flags: TcpFlags, now: u32) -> Option<Self> {
        match tuple.transport {
            Transport::Tcp if flags.rst() || flags.is_syn_ack() => None,
            Transport::Tcp if flags.is_syn() => Some(Self::new(Phase::Opening, now)),
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
        const MULTICAST: u8 = Phase::Multicast as u8;
        match self.phase {
            OPENING | ESTABLISHED if self.reset != 0 || self.fin_in & self.fin_out != 0 => {
                Timer::TcpTransitory
            }
            OPENING => Timer::TcpSyn,
            ESTABLISHED => Timer::TcpEstablished,
            DNS => Timer::UdpDns,
            MULTICAST => Timer::Multicast,
            _ => Timer::Udp,
        }
    }

    /// Whether this is an entry for multicast, which names no remote end.
    #[inline(always)]
    pub const fn is_multicast(self) -> bool {
        self.phase == Phase::Multicast as u8
    }

    /// Whether the flow still counts at `now`.
    ///
    /// The subtraction saturates because another processor's clock may be a tick ahead.
    #[inline(always)]
    pub fn alive(self, now: u32, timeouts: &Timeouts) -> bool {
        now.saturating_sub(self.last_seen) <= timeouts.of(self.timer())
    }
}

/// A flow in a map, where other processors read and write it too.
#[repr(C, align(8))]
pub struct FlowCell(UnsafeCell<Flow>);

impl FlowCell {
    /// A flow that is not in a map.
    pub const fn new(flow: Flow) -> Self {
        Self(UnsafeCell::new(flow))
    }

    /// The flow as it is now. Each field is read once.
    #[inline(always)]
    pub fn load(&self) -> Flow {
        // SAFETY: the cell is a valid, aligned `Flow` for as long as `self` lives, and a volatile
        // read of a field tolerates that another processor writes it.
        unsafe {
            let flow = self.0.get();
            Flow {
                last_seen: (&raw const (*flow).last_seen).read_volatile(),
                phase: (&raw const (*flow).phase).read_volatile(),
                fin_in: (&raw const (*flow).fin_in).read_volatile(),
                fin_out: (&raw const (*flow).fin_out).read_volatile(),
                reset: (&raw const (*flow).reset).read_volatile(),
            }
        }
    }

    /// The flow as it is now, read at once and laid out as [`Flow::word`] has it.
    #[inline(always)]
    pub fn load_word(&self) -> u64 {
        // SAFETY: the cell is as long and as aligned as a word for as long as `self` lives, and a
        // volatile read tolerates that another processor writes it.
        unsafe { self.0.get().cast::<u64>().read_volatile() }
    }

    /// Notes that a packet counted for the flow at `now`.
    #[inline(always)]
    pub fn seen(&self, now: u32) {
        self.set_last_seen(now);
    }

    /// Replaces the flow, the time first: until the rest is written, the flow is merely young.
    #[inline(always)]
    pub fn restart(&self, flow: Flow) {
        self.set_last_seen(flow.last_seen);
        self.set_phase(flow.phase);
        self.set_fin_in(flow.fin_in);
        self.set_fin_out(flow.fin_out);
        self.set_reset(flow.reset);
    }

    /// Updates the flow by a packet from the peer. `flow` is what [`load`](Self::load) returned.
    ///
    /// The first RST starts the transitory timer; more of them do not prolong it, and any other packet of either side cancels it. So a forged RST does a live flow no harm.
    #[inline(always)]
    pub fn received(&self, flow: Flow, flags: TcpFlags, now: u32) {
        if flags.rst() {
            self.start_transitory(flow, now);
            return;
        }

        self.refresh(flow, now);
        if flags.fin() && flow.fin_in == 0 {
            self.set_fin_in(1);
        }
    }

    /// Updates the flow by a packet of this host. `flow` is what [`load`](Self::load) returned.
    #[inline(always)]
    pub fn sent(&self, flow: Flow, flags: TcpFlags, now: u32) {
        if flags.is_syn() {
            let opening = Flow::new(Phase::Opening, now);
            if flow != opening {
                self.restart(opening);
            }
            return;
        }
        if flags.rst() {
            self.start_transitory(flow, now);
            return;
        }

        self.refresh(flow, now);
        if flags.fin() && flow.fin_out == 0 {
            self.set_fin_out(1);
        }
    }

    #[inline(always)]
    fn start_transitory(&self, flow: Flow, now: u32) {
        if flow.reset == 0 {
            self.set_last_seen(now);
            self.set_reset(1);
        }
    }

    /// Any packet but a RST shows that the flow is in use.
    #[inline(always)]
    fn refresh(&self, flow: Flow, now: u32) {
        if flow.last_seen != now {
            self.set_last_seen(now);
        }
        if flow.phase == Phase::Opening as u8 {
            self.set_phase(Phase::Established as u8);
        }
        if flow.reset != 0 {
            self.set_reset(0);
        }
    }
}

/// One volatile store a field, of the field's own width.
macro_rules! stores {
    ($($name:ident: $field:ident, $width:ty;)+) => {
        impl FlowCell {
            $(
                #[inline(always)]
                fn $name(&self, value: $width) {
                    // SAFETY: the cell is a valid, aligned `Flow` for as long as `self` lives, and
                    // a store of one whole field cannot disturb its neighbours.
                    unsafe { (&raw mut (*self.0.get()).$field).write_volatile(value) }
                }
            )+
        }
    };
}

stores! {
    set_last_seen: last_seen, u32;
    set_phase: phase, u8;
    set_fin_in: fin_in, u8;
    set_fin_out: fin_out, u8;
    set_reset: reset, u8;
}
