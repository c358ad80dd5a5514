//! What gets past the guard, whether or not somebody listens for it.

use std::{
    cell::Cell,
    io,
    os::fd::{AsRawFd, RawFd},
};

use anyhow::{Context, Result};

use crate::{frames::End, netns::Namespace, wire::Wire};

/// Counts the frames of one sender that the network stack is handed: packet sockets come after
/// XDP, in either mode.
#[derive(Debug)]
pub struct Tap {
    wire: Wire,
    passed: Cell<u64>,
}

impl Tap {
    /// Counts on an interface of a host, by the sender's Ethernet address.
    pub fn new(host: &Namespace, interface: &str, sender: &End) -> Result<Self> {
        let tap = Self {
            wire: Wire::open(host, interface)?,
            passed: Cell::new(0),
        };
        filter(tap.wire.as_raw_fd(), sender.mac).context("attach a filter")?;
        // What came between the opening and the filter was anybody's.
        statistics(tap.wire.as_raw_fd())?;
        Ok(tap)
    }

    /// How many have passed since it was made.
    pub fn passed(&self) -> Result<u64> {
        // The kernel starts anew with every answer.
        let more = statistics(self.wire.as_raw_fd()).context("read the statistics")?;
        self.passed.set(self.passed.get() + u64::from(more));
        Ok(self.passed.get())
    }
}

/// Lets only frames from `mac` through: the source stands behind the destination.
fn filter(fd: RawFd, mac: [u8; 6]) -> io::Result<()> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const UNLESS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

    let instruction = |code, skipped, k| libc::sock_filter {
        code,
        jt: 0,
        jf: skipped,
        k,
    };
    let [a, b, c, d, e, f] = mac;
    let mut program = [
        instruction(LOAD_WORD, 0, 6),
        instruction(UNLESS_EQUAL, 3, u32::from_be_bytes([a, b, c, d])),
        instruction(LOAD_HALF, 0, 10),
        instruction(UNLESS_EQUAL, 1, u32::from(u16::from_be_bytes([e, f]))),
        // One byte is enough to be counted.
        instruction(RETURN, 0, 1),
        instruction(RETURN, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program is as long as it says, and the kernel copies it.
    let attached = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if attached != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Frames since the last call, also those that the socket had no room for.
fn statistics(fd: RawFd) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the structure is as long as the call is told.
    let read = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(statistics.tp_packets)
}
