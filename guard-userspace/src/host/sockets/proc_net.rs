//! Sockets by /proc/net, for kernels without sock_diag for a protocol.

use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use guard_common::frame::transport::Transport;
use procfs::{
    FromReadSI, ProcError, current_system_info,
    net::{TcpNetEntries, UdpNetEntries},
};

use super::{HostSocket, SocketFamily, SocketState, canonical};

/// Appends every socket of one protocol and family to `sockets`; none when the kernel lacks them.
pub(super) fn read(
    transport: Transport,
    family: SocketFamily,
    sockets: &mut Vec<HostSocket>,
) -> anyhow::Result<()> {
    // `/proc/net` is that of the process's first thread, which may be in another namespace.
    let path = format!("/proc/thread-self/net/{}", table(transport, family));
    let found = match transport {
        Transport::Tcp => TcpNetEntries::from_file(&path, current_system_info()).map(tcp),
        Transport::Udp | Transport::UdpLite => {
            UdpNetEntries::from_file(&path, current_system_info())
                .map(|entries| udp(entries, transport))
        }
    };
    match found {
        Ok(found) => sockets.extend(found),
        Err(ProcError::NotFound(_)) => {}
        Err(error) => {
            return Err(anyhow!(error)).with_context(|| format!("{path}: cannot be read"));
        }
    }

    Ok(())
}

fn table(transport: Transport, family: SocketFamily) -> &'static str {
    match (transport, family) {
        (Transport::Tcp, SocketFamily::V4) => "tcp",
        (Transport::Tcp, SocketFamily::V6) => "tcp6",
        (Transport::Udp, SocketFamily::V4) => "udp",
        (Transport::Udp, SocketFamily::V6) => "udp6",
        (Transport::UdpLite, SocketFamily::V4) => "udplite",
        (Transport::UdpLite, SocketFamily::V6) => "udplite6",
    }
}

fn tcp(entries: TcpNetEntries) -> Vec<HostSocket> {
    entries
        .0
        .iter()
        .filter_map(|entry| {
            let ends = (entry.local_address, entry.remote_address);
            socket(
                Transport::Tcp,
                ends,
                entry.state.to_u8(),
                entry.inode,
                entry.uid,
            )
        })
        .collect()
}

fn udp(entries: UdpNetEntries, transport: Transport) -> Vec<HostSocket> {
    entries
        .0
        .iter()
        .filter_map(|entry| {
            let ends = (entry.local_address, entry.remote_address);
            socket(transport, ends, entry.state.to_u8(), entry.inode, entry.uid)
        })
        .collect()
}

fn socket(
    transport: Transport,
    (local, remote): (SocketAddr, SocketAddr),
    state: u8,
    inode: u64,
    uid: u32,
) -> Option<HostSocket> {
    Some(HostSocket {
        transport,
        local: canonical(local),
        remote: canonical(remote),
        state: SocketState::from_number(state)?,
        device: 0,
        ipv6_only: false,
        inode: u32::try_from(inode).ok()?,
        uid,
    })
}

/// The sockets in the text of a table.
///
/// # Errors
/// When it is no such table.
#[cfg(any(test, fuzzing))]
pub(crate) fn parse(text: &str, transport: Transport) -> anyhow::Result<Vec<HostSocket>> {
    use procfs::FromBufReadSI;

    let system = current_system_info();
    let found = match transport {
        Transport::Tcp => TcpNetEntries::from_buf_read(text.as_bytes(), system).map(tcp),
        Transport::Udp | Transport::UdpLite => {
            UdpNetEntries::from_buf_read(text.as_bytes(), system)
                .map(|entries| udp(entries, transport))
        }
    };

    Ok(found?)
}
