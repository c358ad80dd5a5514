//! Segments that the kernel leaves to the device, and data that it does not copy.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    ptr, thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{PassKnownFlow, PassNewFlow, PassRefreshedFlow},
};
use guard_tests::{
    build,
    frames::{G, P},
    guard::Guard,
    netns::Direct,
    peers::bound,
    wire::{Listener, QUIET},
};

use super::{FAMILIES, MODES, address, dropped, live_flows, set};

/// Bytes to send.
const LENGTH: usize = 4 << 20;
/// The most that one segment carries here.
const SEGMENT: usize = 1448;

type Send = fn(&mut TcpStream) -> Result<()>;

#[test]
fn r05_offloaded_and_uncopied_data_is_one_flow_each() -> Result<()> {
    let ways: [(&str, Send); 3] = [
        ("TSO", write),
        ("sendfile", sendfile),
        ("MSG_ZEROCOPY", zero_copy),
    ];
    for mode in MODES {
        let topology = Direct::new()?;
        let server = topology
            .peer
            .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 80)))?;
        let flags = ["--xdp-mode", mode];
        let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        for (name, send) in ways {
            for family in FAMILIES {
                let name = format!("{name}, {mode}, {family:?}");
                let (flows, before) = (live_flows(&guard)?, guard.packets()?);
                let remote = (address(&P, family), 80);
                let mut client = topology.guarded.run(|| TcpStream::connect(remote))?;
                let (mut accepted, _) = server.accept()?;
                accepted.set_read_timeout(Some(Duration::from_secs(5)))?;
                let reader = thread::spawn(move || {
                    io::copy(&mut Read::by_ref(&mut accepted), &mut io::sink())
                });
                send(&mut client)?;
                drop(client);
                let arrived = reader.join().expect("the reader ends")? as usize;
                ensure!(arrived == LENGTH, "{name}: {arrived} bytes arrived");

                let moved = guard.packets()?.since(&before);
                ensure!(dropped(&moved) == 0, "{name}:{moved}");
                ensure!(moved.of(PassNewFlow) == 1, "{name}:{moved}");
                let frames = moved.of(PassRefreshedFlow);
                ensure!(
                    frames < (LENGTH / SEGMENT / 2) as u64,
                    "{name}: {frames} frames, so nothing was offloaded"
                );
                ensure!(
                    live_flows(&guard)? == flows + 1,
                    "{name}: not one flow more"
                );
            }
        }
    }
    Ok(())
}

fn write(client: &mut TcpStream) -> Result<()> {
    client.write_all(&vec![0x5a; LENGTH])?;
    Ok(())
}

fn sendfile(client: &mut TcpStream) -> Result<()> {
    let file = File::open(build::binary())?;
    let mut left = LENGTH;
    while left > 0 {
        // SAFETY: both are open, and no memory is involved.
        let sent =
            unsafe { libc::sendfile(client.as_raw_fd(), file.as_raw_fd(), ptr::null_mut(), left) };
        ensure!(sent > 0, "{}", io::Error::last_os_error());
        left -= sent as usize;
    }
    Ok(())
}

fn zero_copy(client: &mut TcpStream) -> Result<()> {
    set(client, libc::SOL_SOCKET, libc::SO_ZEROCOPY, &1i32)?;
    // The kernel reads it until the peer has acknowledged it, which may be after this returns.
    let data: &'static [u8] = Box::leak(vec![0x5a; LENGTH].into_boxed_slice());
    let mut left = data;
    while !left.is_empty() {
        let chunk = left.len().min(64 << 10);
        // SAFETY: the data is as long as the call is told, and is never freed.
        let sent = unsafe {
            libc::send(
                client.as_raw_fd(),
                left.as_ptr().cast(),
                chunk,
                libc::MSG_ZEROCOPY,
            )
        };
        ensure!(sent > 0, "{}", io::Error::last_os_error());
        left = &left[sent as usize..];
    }
    Ok(())
}

#[test]
fn r05_udp_segments_are_one_frame_and_one_flow() -> Result<()> {
    const UDP_SEGMENT: i32 = 103;

    for mode in MODES {
        let topology = Direct::new()?;
        let server = Listener::new(&topology.peer, 53)?;
        let flags = ["--xdp-mode", mode];
        let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        for family in FAMILIES {
            let name = || format!("{mode}, {family:?}");
            let flows = live_flows(&guard)?;
            let local = (address(&G, family), 40_000);
            let client = bound(&topology.guarded, || UdpSocket::bind(local))?;
            set(&client, libc::SOL_UDP, UDP_SEGMENT, &1200i32)?;
            guard
                .expect([(PassNewFlow, 1)], || {
                    client.send_to(&[0x5a; 12_000], (address(&P, family), 53))?;
                    Ok(())
                })
                .with_context(name)?;
            let arrived = server.delivered(QUIET);
            ensure!(arrived == 10, "{}: {arrived} datagrams", name());
            ensure!(live_flows(&guard)? == flows + 1, "{}: not one flow", name());
            guard
                .expect([(PassKnownFlow, 1)], || {
                    let client = match family {
                        Family::Ipv6 => G.ipv6,
                        Family::Ipv4 | Family::Other => G.ipv4.to_ipv6_mapped(),
                    };
                    server.socket().send_to(b"answer", (client, 40_000))?;
                    Ok(())
                })
                .with_context(name)?;
        }
    }
    Ok(())
}
