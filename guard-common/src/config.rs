//! What the daemon tells the programs.

use core::cell::UnsafeCell;

use crate::{
    address::{Address, V4, V6},
    filter::Filter,
    flow::Timer,
    ports::{GuardedPorts, Window},
};

/// Jiffies are shifted right by this to make a tick: 0.256 s at 250 Hz, 0.064 s at 1,000 Hz,
/// 0.64 s at 100 Hz.
///
/// A tick must be well under a second, because a timer is only as exact as one; and as long as
/// possible, because a busy flow is written once a tick. As 32 bits they last eight years at
/// 1,000 Hz.
pub const JIFFIES_PER_TICK_SHIFT: u32 = 6;

/// Seconds for which a refused first fragment is remembered: `IP_FRAG_TIME`, include/net/ip.h.
pub const FRAGMENT_MEMORY_SECONDS: u32 = 30;

/// How long flows live after the last packet that counted, in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Timeouts {
    /// [`Timer::TcpSyn`].
    pub tcp_syn: u32,
    /// [`Timer::TcpEstablished`].
    pub tcp_established: u32,
    /// [`Timer::TcpTransitory`].
    pub tcp_transitory: u32,
    /// [`Timer::Udp`].
    pub udp: u32,
    /// [`Timer::UdpDns`].
    pub udp_dns: u32,
    /// [`Timer::Multicast`].
    pub multicast: u32,
    /// How long later fragments of a refused first one are refused.
    pub fragment: u32,
}

impl Timeouts {
    /// The length of one timer.
    #[inline(always)]
    pub const fn of(&self, timer: Timer) -> u32 {
        match timer {
            Timer::TcpSyn => self.tcp_syn,
            Timer::TcpEstablished => self.tcp_established,
            Timer::TcpTransitory => self.tcp_transitory,
            Timer::Udp => self.udp,
            Timer::UdpDns => self.udp_dns,
            Timer::Multicast => self.multicast,
        }
    }

    /// The length of a timer of `seconds` where the kernel counts `hertz` jiffies a second.
    ///
    /// The age of a flow in whole ticks may read one too many, so a timer has one more.
    pub const fn ticks(seconds: u32, hertz: u32) -> u32 {
        let ticks = (seconds as u64 * hertz as u64) >> JIFFIES_PER_TICK_SHIFT;
        if ticks >= u32::MAX as u64 {
            u32::MAX
        } else {
            ticks as u32 + 1
        }
    }
}

/// What the daemon tells the programs. It changes single words of it in place.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Config {
    /// [`LAYOUT_VERSION`](crate::layout::LAYOUT_VERSION) of whoever wrote this.
    pub layout: u32,
    /// Which of the two pages of guarded ports is in force: 0 or 1.
    pub page: u32,
    /// The epoch of the occupancy table, modulo 256.
    pub epoch: u32,
    /// 1 when would-be drops pass.
    pub monitor: u32,
    /// 1 when a UDP flow admits every port of the peer's address.
    pub any_remote_port: u32,
    /// 1 when a flow that is not in the map may be looked up among the kernel's sockets.
    pub rescue: u32,
    /// Questions to ask before a drop: any of [`FORWARDS`](Self::FORWARDS),
    /// [`TRUSTS`](Self::TRUSTS) and [`KERNEL_PORTS`](Self::KERNEL_PORTS).
    pub excuses: u32,
    /// How often the daemon came to doubt the [`filter`](Self::filter). No program reads it.
    pub doubts: u32,
    /// Ports whose strangers are dropped without another question.
    pub window: Window,
    /// What stands before look-ups of packets to ports in use.
    pub filter: Filter,
    /// Timers.
    pub timeouts: Timeouts,
}

/// A [`Config`] that the daemon changes while programs read it.
#[repr(transparent)]
pub struct ConfigCell(UnsafeCell<Config>);

/// One volatile read a word.
macro_rules! reads {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        impl ConfigCell {
            $(
                $(#[doc = $doc])+
                #[inline(always)]
                pub fn $name(&self) -> u32 {
                    // SAFETY: the cell is a valid, aligned `Config` for as long as `self` lives,
                    // and a volatile read of one word tolerates that the daemon writes it.
                    unsafe { (&raw const (*self.0.get()).$name).read_volatile() }
                }
            )+
        }
    };
}

reads! {
    /// Which page of guarded ports is in force.
    page;
    /// The epoch of the occupancy table.
    epoch;
    /// Whether would-be drops pass.
    monitor;
    /// Whether a UDP flow admits every port of the peer's address.
    any_remote_port;
    /// Whether flows may be rescued.
    rescue;
    /// Questions to ask before a drop.
    excuses;
}

impl Config {
    /// In [`excuses`](Self::excuses): some interface forwards or bridges.
    pub const FORWARDS: u32 = 1;
    /// In [`excuses`](Self::excuses): the user trusts somebody.
    pub const TRUSTS: u32 = 2;
    /// In [`excuses`](Self::excuses): the kernel itself receives on some guarded ports.
    pub const KERNEL_PORTS: u32 = 4;

    /// The window that these ports get: none while anything but the flow decides about a drop at
    /// any port. Those on which the kernel receives are in no window.
    pub fn window_on(&self, guarded: &GuardedPorts) -> Window {
        if self.excuses & !Self::KERNEL_PORTS | self.monitor != 0 {
            Window::NONE
        } else {
            Window::of(guarded)
        }
    }
}

impl ConfigCell {
    /// A configuration that is not in a map.
    pub const fn new(config: Config) -> Self {
        Self(UnsafeCell::new(config))
    }

    /// Ports whose strangers are dropped without another question.
    #[inline(always)]
    pub fn window(&self) -> Window {
        // SAFETY: the cell is a valid, aligned `Config` for as long as `self` lives, and a
        // volatile read of one word tolerates that the daemon writes it.
        unsafe { (&raw const (*self.0.get()).window).read_volatile() }
    }

    /// Whether anything but the flow decides about a packet that has none.
    #[inline(always)]
    pub fn asks_before_drop(&self) -> bool {
        (self.excuses() | self.monitor()) != 0
    }

    /// What stands before look-ups of packets to ports in use, as it is now.
    #[inline(always)]
    pub fn filter(&self) -> Filter {
        // SAFETY: as in `window`. The seeds never change while programs look at them.
        unsafe {
            let filter = &raw const (*self.0.get()).filter;
            Filter {
                reach: (&raw const (*filter).reach).read_volatile(),
                seeds: (*filter).seeds,
            }
        }
    }

    /// The timers. They change one word at a time.
    #[inline(always)]
    pub fn timeouts(&self) -> &Timeouts {
        // SAFETY: the cell is a valid, aligned `Config` for as long as `self` lives. A timer that
        // the daemon replaces meanwhile is read as it was or as it will be.
        unsafe { &(*self.0.get()).timeouts }
    }
}

/// Addresses of one family that the programs know of an interface at hand. Others are in the map
/// `local`.
pub const MAX_OWN_ADDRESSES: usize = 8;

/// What the programs know about one interface. Written by the daemon.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Device {
    /// The interface's name, padded with zeroes, for whoever reads the counters.
    pub name: [u8; 16],
    /// How the host sends on what comes in here: any of [`ROUTES`](Self::ROUTES),
    /// [`CARRIES`](Self::CARRIES), [`SHARES`](Self::SHARES) and [`DIVERTS`](Self::DIVERTS), or 0.
    pub forwards: u32,
    /// Zero.
    pub reserved: u32,
    /// The index of the interface that the kernel takes what comes in here to have come in by when
    /// it routes IPv4, and IPv6: this one, or the bridge or bond that it is a port of.
    pub routes_by: [u32; 2],
    /// Its own addresses of IPv4, and as many unspecified ones as there is room for.
    pub ipv4: [V4; MAX_OWN_ADDRESSES],
    /// Those of IPv6, likewise.
    pub ipv6: [V6; MAX_OWN_ADDRESSES],
    /// Zeroes. Counters are taken over from another layout by the name of an interface, as long as
    /// this is as long there.
    pub unused: [u64; 20],
}

const _: () = assert!(size_of::<Device>() == 352);

impl Device {
    /// In [`forwards`](Self::forwards): the host routes what comes in here by its own link
    /// addresses.
    pub const ROUTES: u32 = 1;
    /// In [`forwards`](Self::forwards): frames for other link addresses go on without being
    /// routed, because the interface is a port of a bridge, or takes those of containers or guests.
    pub const CARRIES: u32 = 2;
    /// In [`forwards`](Self::forwards): others have the same link address as this host, so that
    /// nothing but the local table tells what is theirs.
    pub const SHARES: u32 = 4;
    /// In [`forwards`](Self::forwards): marks of the firewall lead packets for other hosts to
    /// sockets of this one, as transparent proxies need.
    pub const DIVERTS: u32 = 8;
}

/// Whether `address` is one of the interface's own.
#[inline(always)]
pub(crate) fn is_among<A: Address>(address: A, own: &[A; MAX_OWN_ADDRESSES]) -> bool {
    address != A::UNSPECIFIED && own.contains(&address)
}
