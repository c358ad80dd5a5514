//! The two tables that stand in front of the flow maps: which ports are guarded, and which of
//! them are in use.

use crate::frame::transport::Transport;

/// Ports there are.
pub const PORTS: usize = 1 << 16;

/// Which local ports are guarded, one bit a port: a part of a [`Page`](crate::abi::page::Page).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct GuardedPorts {
    /// Guarded TCP ports: bit `port % 32` of word `port / 32`.
    pub tcp: [u32; PORTS / 32],
    /// Guarded UDP and UDP-Lite ports.
    pub udp: [u32; PORTS / 32],
    /// Remote UDP ports whose answers never come back to the source port: tunnels, which choose
    /// it to spread load.
    pub unrecorded: [u32; PORTS / 32],
    /// Guarded UDP ports on which the kernel itself receives at some addresses.
    pub kernel: [u32; PORTS / 32],
}

/// The lowest port on which the kernel can be known to receive: a tunnel has no lower one.
pub const FIRST_KERNEL_PORT: usize = 64;

impl GuardedPorts {
    /// No port at all.
    pub const NONE: Self = Self {
        tcp: [0; PORTS / 32],
        udp: [0; PORTS / 32],
        unrecorded: [0; PORTS / 32],
        kernel: [0; PORTS / 32],
    };

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
            Transport::Udp => contains(&self.kernel, port),
            Transport::Tcp | Transport::UdpLite => false,
        }
    }
}

#[inline(always)]
fn contains(ports: &[u32; PORTS / 32], port: usize) -> bool {
    let port = port & (PORTS - 1);

    (ports[port / 32] >> (port % 32)) & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_on_which_the_kernel_receives() {
        for port in [1, FIRST_KERNEL_PORT, 4789, 6081, PORTS - 1] {
            let mut ports = GuardedPorts::NONE;
            ports.kernel[port / 32] |= 1 << (port % 32);
            for other in 0..PORTS {
                let receives = ports.kernel_receives(Transport::Udp, other);
                assert_eq!(receives, other == port, "{port} {other}");
            }
            assert!(!ports.kernel_receives(Transport::Tcp, port));
            assert!(!ports.kernel_receives(Transport::UdpLite, port));
        }
    }
}
