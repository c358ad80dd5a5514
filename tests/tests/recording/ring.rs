//! A ring that the kernel takes frames from: of each, only the Ethernet header is copied, and the
//! rest stays in pages (`tpacket_fill_skb`), where direct packet access does not reach.

use std::{io, os::fd::AsRawFd, ptr};

use anyhow::{Context, Result, ensure};
use guard_tests::wire::Wire;

use super::set;

const BLOCK: usize = 4096;
const SLOT: usize = 2048;
/// Where the frame stands in a slot: behind the header, which is a multiple of 16 bytes long.
const DATA: usize = size_of::<libc::tpacket2_hdr>();

/// The first slot of the ring of a wire.
pub struct Ring<'a> {
    wire: &'a Wire,
    memory: *mut libc::c_void,
}

impl<'a> Ring<'a> {
    pub fn new(wire: &'a Wire) -> Result<Self> {
        let version = libc::tpacket_versions::TPACKET_V2 as i32;
        set(wire, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: 1,
            tp_frame_size: SLOT as u32,
            tp_frame_nr: (BLOCK / SLOT) as u32,
        };
        set(wire, libc::SOL_PACKET, libc::PACKET_TX_RING, &request).context("make a ring")?;
        // SAFETY: a new mapping touches no other memory.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                BLOCK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                wire.as_raw_fd(),
                0,
            )
        };
        ensure!(memory != libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Ok(Self { wire, memory })
    }

    /// Sends one frame, the only one of this ring, and waits until the kernel has taken it.
    pub fn send(self, frame: &[u8]) -> Result<()> {
        ensure!(DATA + frame.len() <= SLOT, "the frame is too long");
        let header = self.memory.cast::<libc::tpacket2_hdr>();
        // SAFETY: the slot is mapped, longer than the header and the frame, and the kernel does
        // not touch it before its status says so, which is written last.
        unsafe {
            let data = self.memory.cast::<u8>().add(DATA);
            ptr::copy_nonoverlapping(frame.as_ptr(), data, frame.len());
            (*header).tp_len = frame.len() as u32;
            ptr::write_volatile(&raw mut (*header).tp_status, libc::TP_STATUS_SEND_REQUEST);
        }
        // SAFETY: the call takes no buffer.
        let sent = unsafe { libc::send(self.wire.as_raw_fd(), ptr::null(), 0, 0) };
        ensure!(
            usize::try_from(sent) == Ok(frame.len()),
            "{sent} bytes sent: {}",
            io::Error::last_os_error()
        );
        Ok(())
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this ring's own, and nothing points into it any more.
        unsafe { libc::munmap(self.memory, BLOCK) };
    }
}
