//! The two tables that stand in front of the flow maps: which ports are guarded, and which of
//! them are in use.

use crate::frame::transport::Transport;

/// Ports there are.
pub const PORTS: usize = 1 << 16;

/// Which local ports are guarded, one bit a port. The daemon fills the page that is not in use
/// and then flips [`Config::page`], so no packet ever sees half of a change.
///
/// [`Config::page`]: crate::abi::config::Config::page
#[derive(Clone, Copy)]
#[repr(C)]
pub struct GuardedPorts {
    /// The first port of the range, in host byte order.
    pub first: u32,
    /// The last port of the range, which is in it too.
    pub last: u32,
    /// Guarded TCP ports: bit `port % 32` of word `port / 32`.
    pub tcp: [u32; PORTS / 32],
    /// Guarded UDP and UDP-Lite ports.
    pub udp: [u32; PORTS / 32],
    /// Remote UDP ports whose answers never come back to the source port: tunnels, which choose
    /// it to spread load.
    pub unrecorded: [u32; PORTS / 32],
    /// Guarded UDP ports on which the kernel itself receives at some addresses, without those below
    /// [`FIRST_KERNEL_PORT`]: a page is a power of two, so that finding it takes no multiplication.
    pub kernel: [u32; KERNEL_WORDS],
}

/// The lowest port on which the kernel can be known to receive: a tunnel has no lower one.
pub const FIRST_KERNEL_PORT: usize = 64;

/// Words of [`GuardedPorts::kernel`].
pub const KERNEL_WORDS: usize = (PORTS - FIRST_KERNEL_PORT) / 32;

const _: () = assert!(size_of::<GuardedPorts>() == 1 << 15);

impl GuardedPorts {
    /// Whether packets to this port, by its index, need a flow.
    #[inline(always)]
    pub fn guards(&self, transport: Transport, port: usize) -> bool {
        match transport {
            Transport::Tcp => contains(&self.tcp, port),
            Transport::Udp | Transport::UdpLite => contains(&self.udp, port),
        }
    }

    /// Whether flows to this remote port, by its index, are left unrecorded.
    #[inline(always)]
    pub fn leaves_unrecorded(&self, transport: Transport, remote_port: usize) -> bool {
        match transport {
            Transport::Udp => contains(&self.unrecorded, remote_port),
            Transport::Tcp | Transport::UdpLite => false,
        }
    }

    /// Whether the kernel itself receives on this port, by its index, at some address.
    #[inline(always)]
    pub fn kernel_receives(&self, transport: Transport, port: usize) -> bool {
        match transport {
            Transport::Udp => {
                let port = (port & (PORTS - 1)).wrapping_sub(FIRST_KERNEL_PORT);
                let word = self.kernel.get(port / 32);
                word.is_some_and(|word| (word >> (port % 32)) & 1 != 0)
            }
            Transport::Tcp | Transport::UdpLite => false,
        }
    }

    /// Whether this port, by its index, lies in the range, guarded or not.
    #[inline(always)]
    pub fn in_range(&self, port: usize) -> bool {
        (self.first as usize..=self.last as usize).contains(&port)
    }
}

#[inline(always)]
fn contains(ports: &[u32; PORTS / 32], port: usize) -> bool {
    let port = port & (PORTS - 1);

    (ports[port / 32] >> (port % 32)) & 1 != 0
}

/// Ports whose strangers are dropped without another question: guarded for every protocol, and
/// nobody is excused. One word, so that it changes as a whole; wherever it is too small, a packet
/// is merely judged the longer way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Window(u64);

impl Window {
    /// No port at all.
    pub const NONE: Self = Self(PORTS as u64);

    /// The ports from `first` on, and so many after it.
    const fn new(first: usize, more: usize) -> Self {
        Self(first as u64 | (more as u64) << 32)
    }

    /// The longest run of ports that are guarded for every protocol and at every address.
    pub fn of(guarded: &GuardedPorts) -> Self {
        let (mut longest, mut run) = (0, 0);
        let mut window = Self::NONE;
        for port in 0..PORTS {
            if guarded.guards(Transport::Tcp, port)
                && guarded.guards(Transport::Udp, port)
                && !guarded.kernel_receives(Transport::Udp, port)
            {
                run += 1;
            } else {
                run = 0;
            }
            if run > longest {
                longest = run;
                window = Self::new(port + 1 - run, run - 1);
            }
        }
        window
    }

    /// Whether `port`, by its index, is one of them.
    #[inline(always)]
    pub const fn contains(self, port: usize) -> bool {
        (port as u32).wrapping_sub(self.0 as u32) <= (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    const NOTHING: GuardedPorts = GuardedPorts {
        first: 0,
        last: 0,
        tcp: [0; PORTS / 32],
        udp: [0; PORTS / 32],
        unrecorded: [0; PORTS / 32],
        kernel: [0; KERNEL_WORDS],
    };

    fn guarding(tcp: &[usize], udp: &[usize]) -> GuardedPorts {
        let mut ports = NOTHING;
        for port in tcp {
            ports.tcp[port / 32] |= 1 << (port % 32);
        }
        for port in udp {
            ports.udp[port / 32] |= 1 << (port % 32);
        }
        ports
    }

    fn window(guarded: &GuardedPorts) -> [usize; 2] {
        let window = Window::of(guarded);
        let mut ports = (0..PORTS).filter(|&port| window.contains(port));
        let first = ports.next().unwrap_or(PORTS);
        [first, ports.next_back().unwrap_or(first)]
    }

    #[test]
    fn the_window_is_the_longest_run_that_both_protocols_share() {
        let none = [PORTS; 2];
        assert_eq!(window(&NOTHING), none);
        assert_eq!(window(&guarding(&[7], &[])), none);
        assert_eq!(window(&guarding(&[7], &[7])), [7, 7]);
        assert_eq!(window(&guarding(&[1, 2, 3], &[2, 3, 4])), [2, 3]);
        let broken: Vec<usize> = (100..=109).chain(111..=130).chain(132..=140).collect();
        assert_eq!(window(&guarding(&broken, &broken)), [111, 130]);
        let all: Vec<usize> = (0..PORTS).collect();
        assert_eq!(window(&guarding(&all, &all)), [0, PORTS - 1]);
        assert_eq!(
            window(&guarding(&all, &[PORTS - 1])),
            [PORTS - 1, PORTS - 1]
        );
        assert!((0..PORTS).all(|port| !Window::NONE.contains(port)));
        let mut tunnel = guarding(&all, &all);
        tunnel.kernel[(4789 - FIRST_KERNEL_PORT) / 32] |= 1 << (4789 % 32);
        assert_eq!(window(&tunnel), [4790, PORTS - 1]);
    }

    #[test]
    fn ports_on_which_the_kernel_receives() {
        for port in [FIRST_KERNEL_PORT, 4789, 6081, PORTS - 1] {
            let mut ports = NOTHING;
            ports.kernel[(port - FIRST_KERNEL_PORT) / 32] |= 1 << (port % 32);
            for other in 0..PORTS {
                let receives = ports.kernel_receives(Transport::Udp, other);
                assert_eq!(receives, other == port, "{port} {other}");
            }
            assert!(!ports.kernel_receives(Transport::Tcp, port));
            assert!(!ports.kernel_receives(Transport::UdpLite, port));
        }
    }
}
