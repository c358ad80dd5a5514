//! Programs of somebody else on what an interface sends and receives.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result, ensure};
use guard_userspace::bpf::syscalls::{self, tcx};

pub use guard_userspace::bpf::syscalls::tcx::TcxEnd as End;

use crate::{bpffs, netns::Namespace};

/// The verdict that lets the next program have the packet: `TCX_NEXT`, include/uapi/linux/bpf.h.
pub const NEXT: i32 = -1;
/// The verdict that ends the chain and lets the packet go: `TCX_PASS`.
pub const PASS: i32 = 0;

/// Which port of a packet a program changes.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// The one it comes from.
    Source,
    /// The one it goes to.
    Destination,
}

/// A classifier that is loaded.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// One that returns this verdict and does nothing else.
    pub fn returning(verdict: i32) -> Result<Self> {
        Self::load(&Assembly::default().returning(verdict).0)
    }

    /// One that changes the port `from` to `to` in TCP and UDP over either family, and returns this
    /// verdict of every packet.
    pub fn changing(side: Side, from: u16, to: u16, verdict: i32) -> Result<Self> {
        Self::load(&changing(side, from, to, verdict).0)
    }

    /// Puts it among the TCX programs that see what an interface sends, for as long as the link that
    /// is returned is open.
    pub fn attach(&self, host: &Namespace, interface: &str, end: End) -> Result<OwnedFd> {
        let program = self.0.as_fd();
        host.run(|| tcx::attach(program, index(interface)?, end))
            .context("attach a TCX program")
    }

    /// Adds it as a filter of clsact that decides by its verdict, with this direction (`egress`), and
    /// what else `tc filter add` is to be told, such as `prio 1`.
    pub fn add_filter(
        &self,
        host: &Namespace,
        (interface, direction): (&str, &str),
        words: &str,
    ) -> Result<()> {
        let folder = bpffs::Folder::new()?;
        let pin = folder.path().join("neighbour");
        syscalls::pin(self.0.as_fd(), &pin)?;
        let pin = pin.display();
        let added = add_filter(
            host,
            (interface, direction),
            &format!("{words} bpf da object-pinned {pin}"),
        )?;
        ensure!(added, "the kernel has no filters of kind bpf");
        Ok(())
    }

    /// One that hands every packet to the peer of the veth with this index, which gets it as if it had
    /// received it from there (`bpf_redirect_peer`).
    pub fn redirecting_to_peer(index: u32) -> Result<Self> {
        const REDIRECT_PEER: i32 = 155;

        let steps = Assembly::default().set(1, index as i32).set(2, 0);
        Self::load(&steps.call(REDIRECT_PEER).step(0x95, 0, 0, 0, 0).0)
    }

    fn load(instructions: &[u64]) -> Result<Self> {
        /// `BPF_PROG_LOAD`, include/uapi/linux/bpf.h.
        const LOAD: libc::c_int = 5;
        /// `BPF_PROG_TYPE_SCHED_CLS`.
        const CLASSIFIER: u32 = 3;
        #[repr(C)]
        struct Load {
            kind: u32,
            length: u32,
            instructions: u64,
            license: u64,
            log: [u64; 2],
            kernel: u32,
            flags: u32,
            name: [u8; 16],
        }

        let mut attr = Load {
            kind: CLASSIFIER,
            length: u32::try_from(instructions.len())?,
            instructions: instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log: [0; 2],
            kernel: 0,
            flags: 0,
            name: *b"neighbour\0\0\0\0\0\0\0",
        };
        // SAFETY: instructions and license outlive the call, and are as long as it is told.
        let program =
            unsafe { libc::syscall(libc::SYS_bpf, LOAD, &raw mut attr, size_of::<Load>()) };
        ensure!(
            program >= 0,
            "load a program: {}",
            io::Error::last_os_error()
        );
        // SAFETY: it was just opened, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(program as i32) }))
    }

    /// Its id.
    pub fn id(&self) -> Result<u32> {
        let path = format!("/proc/self/fdinfo/{}", self.0.as_raw_fd());
        let text = std::fs::read_to_string(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
        Ok(line.context("the kernel tells no id")?.trim().parse()?)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Adds a filter as `tc filter add` does with these words, and the qdisc it takes. Returns whether the
/// kernel has such filters, and prints what is skipped where it has not.
pub fn add_filter(
    host: &Namespace,
    (interface, direction): (&str, &str),
    words: &str,
) -> Result<bool> {
    // It may be there.
    let _ = tc(host, &format!("qdisc add dev {interface} clsact"));
    let add = format!("filter add dev {interface} {direction} {words}");
    match tc(host, &add) {
        Err(error)
            if ["not found", "Failed to load"]
                .iter()
                .any(|why| error.to_string().contains(why)) =>
        {
            println!("skipped: {error:#}");
            Ok(false)
        }
        added => added.map(|_| true),
    }
}

/// Runs `tc` on a host, with the words of `arguments`.
pub fn tc(host: &Namespace, arguments: &str) -> Result<String> {
    // Not by `tc -n`, which hides what is pinned.
    let mut command = host.command("tc");
    let output = command.args(arguments.split_whitespace()).output()?;
    ensure!(
        output.status.success(),
        "tc {arguments}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The ids of the TCX programs that see what an interface sends, in the order in which they run.
pub fn row(host: &Namespace, interface: &str) -> Result<Vec<u32>> {
    let row = host.run(|| tcx::programs(index(interface)?))?;
    Ok(row.unwrap_or_default())
}

fn index(interface: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: the name ends in zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Instructions, as include/uapi/linux/bpf.h has them.
#[derive(Default)]
struct Assembly(Vec<u64>);

impl Assembly {
    fn step(mut self, code: u8, to: u8, from: u8, offset: i16, value: i32) -> Self {
        let registers = u64::from(from << 4 | to) << 8;
        let offset = u64::from(offset as u16) << 16;
        self.0
            .push(u64::from(code) | registers | offset | (value as u32 as u64) << 32);
        self
    }

    /// A register becomes a number.
    fn set(self, register: u8, value: i32) -> Self {
        self.step(0xb7, register, 0, 0, value)
    }

    /// A register becomes what another is.
    fn copy(self, to: u8, from: u8) -> Self {
        self.step(0xbf, to, from, 0, 0)
    }

    fn add(self, register: u8, value: i32) -> Self {
        self.step(0x07, register, 0, 0, value)
    }

    fn add_register(self, to: u8, from: u8) -> Self {
        self.step(0x0f, to, from, 0, 0)
    }

    /// Skips so many instructions where a register is this number.
    fn skip_if(self, register: u8, value: i32, count: i16) -> Self {
        self.step(0x15, register, 0, count, value)
    }

    fn skip_unless(self, register: u8, value: i32, count: i16) -> Self {
        self.step(0x55, register, 0, count, value)
    }

    fn skip(self, count: i16) -> Self {
        self.step(0x05, 0, 0, count, 0)
    }

    fn call(self, helper: i32) -> Self {
        self.step(0x85, 0, 0, 0, helper)
    }

    fn returning(self, verdict: i32) -> Self {
        self.set(0, verdict).step(0x95, 0, 0, 0, 0)
    }
}

/// Registers 6 to 9 are the packet, what was read, the place of the ports, and the place in the
/// transport header of the checksum.
fn changing(side: Side, from: u16, to: u16, verdict: i32) -> Assembly {
    const LOAD_BYTES: i32 = 26;
    const STORE_BYTES: i32 = 9;
    const REPLACE_L4_CHECKSUM: i32 = 11;
    /// Of `protocol` in `struct __sk_buff`.
    const PROTOCOL: i16 = 16;

    let port = match side {
        Side::Source => 0,
        Side::Destination => 2,
    };
    let (from, to) = (i32::from(from.to_be()), i32::from(to.to_be()));
    // Reads `count` bytes at `register` plus `offset` to the stack.
    let read = |steps: Assembly, register, offset, count| {
        steps
            .copy(1, 6)
            .copy(2, register)
            .add(2, offset)
            .copy(3, 10)
            .add(3, -8)
            .set(4, count)
            .call(LOAD_BYTES)
    };
    let leave = |steps: Assembly| steps.returning(verdict);

    let steps = Assembly::default().copy(6, 1);
    let steps = steps.step(0x61, 7, 6, PROTOCOL, 0);
    // The place of the ports, and in register 9 that of the protocol.
    let steps = steps.set(8, 34).set(9, 23).skip_if(7, 0x0008, 5);
    let steps = steps.set(8, 54).set(9, 20).skip_if(7, 0xdd86, 2);
    let steps = leave(steps);
    let steps = read(steps, 9, 0, 1);
    let steps = steps.step(0x71, 7, 10, -8, 0);
    let steps = steps.set(9, 16).skip_if(7, 6, 4);
    let steps = steps.set(9, 6).skip_if(7, 17, 2);
    let steps = leave(steps);
    let steps = read(steps, 8, port, 2);
    let steps = steps
        .step(0x69, 7, 10, -8, 0)
        .skip_unless(7, from, 1)
        .skip(2);
    let steps = leave(steps);
    let steps = steps
        .copy(1, 6)
        .copy(2, 8)
        .add_register(2, 9)
        .set(3, from)
        .set(4, to)
        .set(5, 2)
        .call(REPLACE_L4_CHECKSUM);
    let steps = steps
        .step(0x6a, 10, 0, -8, to)
        .copy(1, 6)
        .copy(2, 8)
        .add(2, port)
        .copy(3, 10)
        .add(3, -8)
        .set(4, 2)
        .set(5, 0)
        .call(STORE_BYTES);
    leave(steps)
}
