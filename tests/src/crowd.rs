//! Processes that have much open: more sockets and descriptors than a single one may have.

use std::{
    io::{self, PipeReader, PipeWriter, Read},
    net::SocketAddrV4,
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;

/// Descriptors that a process has anyway.
const SPARE: usize = 100;

/// Processes that wait. They end with this value.
#[derive(Debug)]
pub struct Crowd(Vec<libc::pid_t>);

impl Crowd {
    /// So many UDP sockets of `host`, all connected to `peer` and its next ports, on local ports from
    /// `first` on, and on the same ones again where that are too many. `spared` is left alone.
    pub fn of_sockets(
        host: &Namespace,
        peer: SocketAddrV4,
        (first, spared): (u16, u16),
        count: usize,
    ) -> Result<Self> {
        let ports = usize::from(u16::MAX - first);
        let socket = move |number: usize| {
            let local = first + (number % ports) as u16;
            let remote = SocketAddrV4::new(*peer.ip(), peer.port() + (number / ports) as u16);
            local == spared || connected(local, remote)
        };
        host.run(|| Self::of(count, socket))
    }

    /// So many descriptors, all of one file.
    pub fn of_descriptors(count: usize) -> Result<Self> {
        // SAFETY: no memory is involved.
        Self::of(count, |_| unsafe { libc::dup(0) } >= 0)
    }

    /// Has processes open so many of something, and waits until they have.
    fn of(count: usize, open: impl Fn(usize) -> bool + Copy) -> Result<Self> {
        let each = most().context("how much may be open")? - SPARE;
        let (mut told, tells) = io::pipe()?;
        let mut crowd = Self(Vec::new());
        for first in (0..count).step_by(each) {
            let numbers = first..count.min(first + each);
            // SAFETY: the child makes system calls and ends; it neither allocates nor locks.
            match unsafe { libc::fork() } {
                0 => open_and_wait(numbers, open, &told, &tells),
                -1 => return Err(io::Error::last_os_error()).context("start a process"),
                child => crowd.0.push(child),
            }
        }
        drop(tells);
        for _ in 0..crowd.0.len() {
            let mut well = [0];
            told.read_exact(&mut well).context("a process has ended")?;
            ensure!(well == [1], "a process cannot open that much");
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for process in &self.0 {
            // SAFETY: no memory is involved but the status, and the process is a child of this one
            // that nobody has waited for.
            unsafe {
                libc::kill(*process, libc::SIGKILL);
                let mut status = 0;
                libc::waitpid(*process, &raw mut status, 0);
            }
        }
    }
}

/// How many descriptors a process may have, and this one has from now on.
pub fn most() -> io::Result<usize> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit outlives the calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // Where a process may have a million, several share the work all the same.
    Ok((limit.rlim_max as usize).min(25_000))
}

fn open_and_wait(
    mut numbers: std::ops::Range<usize>,
    open: impl Fn(usize) -> bool,
    told: &PipeReader,
    tells: &PipeWriter,
) -> ! {
    let well = u8::from(numbers.all(open));
    // SAFETY: the byte outlives the call, and the other calls take numbers only.
    unsafe {
        let test = libc::getppid();
        libc::close(told.as_raw_fd());
        libc::write(tells.as_raw_fd(), (&raw const well).cast(), 1);
        // Not by a signal at its end: that comes when the thread ends that has started this process.
        while libc::getppid() == test {
            libc::sleep(1);
        }
        libc::_exit(0)
    }
}

/// Opens a UDP socket and leaves it open; others may have the same port.
fn connected(local: u16, remote: SocketAddrV4) -> bool {
    let address = |ip: u32, port: u16| libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: ip },
        sin_zero: [0; 8],
    };
    let (here, there) = (
        address(0, local),
        address(remote.ip().to_bits().to_be(), remote.port()),
    );
    let on: libc::c_int = 1;
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: what is pointed to outlives the calls, and is as long as they are told.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        socket >= 0
            && libc::setsockopt(
                socket,
                libc::SOL_SOCKET,
                libc::SO_REUSEADDR,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            ) == 0
            && libc::bind(socket, (&raw const here).cast(), length) == 0
            && libc::connect(socket, (&raw const there).cast(), length) == 0
    }
}
