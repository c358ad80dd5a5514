//! What the running kernel has, of what not every kernel has that can be guarded. Each is named here
//! alone, so that tests can do without it.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use aya::util::KernelVersion;

/// The one list of features: variant, name, and the version of Linux that has it.
macro_rules! features {
    ($($(#[doc = $doc:literal])+ $variant:ident, $name:literal, $major:literal, $minor:literal;)+) => {
        /// Something that not every kernel has.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Feature {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Feature {
            /// Every feature.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name, as users read it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            fn since(self) -> KernelVersion {
                match self {
                    $(Self::$variant => KernelVersion::new($major, $minor, 0),)+
                }
            }
        }
    };
}

features! {
    /// A row of programs that see what an interface sends:
    /// <https://github.com/torvalds/linux/commit/e420bed02507>. Without it, a filter of clsact.
    Tcx, "TCX", 6, 6;
    /// XDP programs that read frames in several pieces. Without it, generic XDP above the MTU that
    /// fits into one.
    XdpFrags, "XDP of frames in several pieces", 5, 18;
    /// What a driver does for XDP programs, over generic netlink:
    /// <https://github.com/torvalds/linux/commit/d3d854fd6a1d>. Without it, what is known of drivers.
    DriverXdp, "XDP features of drivers", 6, 3;
    /// Elements of hash maps that are read and taken out in one step:
    /// <https://github.com/torvalds/linux/commit/3e87f192b405>. Without it, full maps forget idle flows
    /// before expired ones.
    TakeElement, "elements that are taken out", 5, 14;
    /// A number of a network namespace that no other ever has. Without it, its inode.
    NamespaceCookie, "cookies of network namespaces", 5, 14;
    /// Lists of sockets over netlink, which are modules. Without it, /proc/net.
    SockDiag, "sock_diag", 3, 3;
    /// Lists of tracked connections over netlink, which is a module. Without it, answers to flows that
    /// only conntrack knows are dropped until their hosts send.
    Ctnetlink, "ctnetlink", 2, 6;
}

/// The features that tests do without, a bit each.
static WITHOUT: AtomicU32 = AtomicU32::new(0);

impl Feature {
    /// Whether it may be used. A kernel that has it not says so when it is.
    pub fn may_be_used(self) -> bool {
        WITHOUT.load(Ordering::Relaxed) & (1 << self as u32) == 0
    }

    /// Whether it is there, as far as the version of the kernel tells.
    pub fn is_expected(self) -> bool {
        static KERNEL: OnceLock<Option<KernelVersion>> = OnceLock::new();

        let kernel = KERNEL.get_or_init(|| KernelVersion::current().ok());

        self.may_be_used() && kernel.is_some_and(|kernel| kernel >= self.since())
    }

    /// From now on it is as if the kernel had it not. For tests; nothing in `portguard` calls it.
    pub fn do_without(self) {
        WITHOUT.fetch_or(1 << self as u32, Ordering::Relaxed);
    }
}
