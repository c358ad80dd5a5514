//! What the kernel itself knows: its sockets and its routes.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_SUCCESS,
        bpf_fib_lookup as FibLookup, bpf_sock, bpf_sock_tuple,
    },
    helpers::{bpf_fib_lookup, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use guard_common::{
    flow::key::SizedKey,
    frame::{
        address::{Address, V6},
        transport::Transport,
    },
    outcome::Family,
    policy::datapath::{RouteKey, SocketMatch},
};

use crate::verifier;

/// `TCP_ESTABLISHED`, include/net/tcp_states.h: also what a connected UDP socket is in.
const ESTABLISHED: u32 = 1;
/// `TCP_LISTEN`.
const LISTEN: u32 = 10;

/// `AF_INET`.
const INET: u64 = 2;
/// `AF_INET6`.
const INET6: u64 = 10;

/// `ENODEV`, negated.
const NO_DEVICE: i64 = -19;

/// What the kernel has for a packet of this flow. UDP-Lite has a table that no helper reads.
///
/// The ends are a `bpf_sock_tuple` as little-endian words, from the sender's address on: stored by
/// fields they would be more for a verifier to follow.
#[inline(always)]
pub fn socket(ctx: *mut c_void, transport: Transport, key: SizedKey<'_>) -> SocketMatch {
    match (key, transport) {
        (_, Transport::UdpLite) => SocketMatch::None,
        (SizedKey::V4(key), transport) => {
            let mut ends = [
                u64::from(key.remote.0) | u64::from(key.local.0) << 32,
                ports(key.remote_port, key.local_port),
            ];
            look_up(ctx, transport, ends.as_mut_ptr().cast(), 12)
        }
        (SizedKey::V6(key), transport) => {
            let mut ends = [
                key.remote.high,
                key.remote.low,
                key.local.high,
                key.local.low,
                ports(key.remote_port, key.local_port),
            ];
            look_up(ctx, transport, ends.as_mut_ptr().cast(), 36)
        }
    }
}

/// The last word of the ends.
#[inline(always)]
fn ports(source: u16, destination: u16) -> u64 {
    u64::from(source) | u64::from(destination) << 16
}

/// The two helpers return different kinds of socket, which must not meet in one branch: the
/// verifier follows each to its release separately.
#[inline(always)]
fn look_up(
    ctx: *mut c_void,
    transport: Transport,
    ends: *mut bpf_sock_tuple,
    size: u32,
) -> SocketMatch {
    let here = BPF_F_CURRENT_NETNS as u64;
    match transport {
        Transport::Tcp => {
            // SAFETY: `ends` points to `size` bytes of addresses and ports.
            let socket = unsafe { bpf_skc_lookup_tcp(ctx, ends, size, here, 0) };
            if socket.is_null() {
                return SocketMatch::None;
            }
            // SAFETY: the helper has returned a socket, which is ours until its release.
            let state = unsafe { state(socket) };
            // SAFETY: as above; nothing reads it afterwards.
            unsafe { bpf_sk_release(socket.cast()) };
            if state == LISTEN {
                SocketMatch::Listener
            } else {
                SocketMatch::Connected
            }
        }
        Transport::Udp | Transport::UdpLite => {
            // SAFETY: `ends` points to `size` bytes of addresses and ports.
            let socket = unsafe { bpf_sk_lookup_udp(ctx, ends, size, here, 0) };
            if socket.is_null() {
                return SocketMatch::None;
            }
            // SAFETY: the helper has returned a socket, which is ours until its release. The
            // kernel returns a connected one only for a packet from its peer (`compute_score`,
            // net/ipv4/udp.c).
            let state = unsafe { state(socket) };
            // SAFETY: as above; nothing reads it afterwards.
            unsafe { bpf_sk_release(socket.cast()) };
            if state == ESTABLISHED {
                SocketMatch::Connected
            } else {
                SocketMatch::Listener
            }
        }
    }
}

/// # Safety
///
/// `socket` must not have been released.
#[inline(always)]
unsafe fn state(socket: *const bpf_sock) -> u32 {
    // SAFETY: the caller vouches for the socket.
    unsafe { (&raw const (*socket).state).read_volatile() }
}

/// Whether the kernel sends a packet on to another host. What its routes deliver here, drop, or have
/// no answer for is not sent on. It has come in by the first of the `interfaces`, as the kernel sees
/// it; if that is gone, by the second.
#[inline(always)]
pub fn forwards<A: Address>(ctx: *mut c_void, interfaces: [u32; 2], packet: &RouteKey<A>) -> bool {
    let (source, destination) = (packet.source.widened(), packet.destination.widened());
    let family = match A::FAMILY {
        Family::Ipv6 => {
            // The kernel says of these that they are not routed, wherever they are.
            if stays_on_link(source) || stays_on_link(destination) {
                return false;
            }
            INET6
        }
        Family::Ipv4 | Family::Other => INET,
    };
    // The structure as little-endian words: its fields, stored one by one, would be joined where the verifier wants separate stores.
    // Zeros that the compiler knows of it has written by a loop, which a verifier follows.
    let zero = verifier::opaque(0) as u64;
    let ports = u64::from(packet.source_port) << 16 | u64::from(packet.destination_port) << 32;
    let class = u64::from(packet.class) << 32;
    let mut lookup: [u64; size_of::<FibLookup>() / 8] = [
        family | u64::from(packet.protocol) << 8 | ports,
        class | u64::from(interfaces[0]),
        source.high,
        source.low,
        destination.high,
        destination.low,
        zero,
        zero,
    ];
    let mut answer = fib_lookup(ctx, &mut lookup);
    if answer == NO_DEVICE {
        lookup[1] = class | u64::from(interfaces[1]);
        answer = fib_lookup(ctx, &mut lookup);
    }

    const SENT: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
    const NOT_ROUTED: i64 = BPF_FIB_LKUP_RET_FWD_DISABLED as i64;
    // Up to the last are the answers for packets that are dropped or end here.
    answer == SENT || answer > NOT_ROUTED
}

#[inline(always)]
fn fib_lookup(ctx: *mut c_void, lookup: &mut [u64; size_of::<FibLookup>() / 8]) -> i64 {
    // SAFETY: `lookup` is as long and as aligned as the structure, and laid out as it is.
    unsafe {
        bpf_fib_lookup(
            ctx,
            lookup.as_mut_ptr().cast(),
            size_of::<FibLookup>() as i32,
            0,
        )
    }
}

/// Whether no router sends on what has this address: it is link-local, or a group.
#[inline(always)]
fn stays_on_link(address: V6) -> bool {
    let first = u64::from_be(address.high) >> 48;
    first & 0xffc0 == 0xfe80 || first >> 8 == 0xff
}
