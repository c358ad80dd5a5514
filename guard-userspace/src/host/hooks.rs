//! Where the kernel runs programs for an interface, and the words by which administrators ask for it.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Defines the hooks of one direction, and the setting that chooses one of them or leaves the choice to
/// the guard.
macro_rules! hooks {
    (
        $(#[$about:meta])* $hook:ident;
        $(#[$asked_for:meta])* $choice:ident;
        $(#[$chosen_by_guard:meta])* $auto:ident;
        $($(#[$where:meta])* $variant:ident $label:tt, $(#[$asked:meta])* asked;)*
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $hook {
            $($(#[$where])* $variant,)*
        }

        impl $hook {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word for it in settings, metrics and JSON.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }

        $(#[$asked_for])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
        pub enum $choice {
            $(#[$chosen_by_guard])*
            #[default]
            #[value(name = "auto")]
            #[serde(rename = "auto")]
            $auto,
            $(
                $(#[$asked])*
                #[value(name = $label)]
                #[serde(rename = $label)]
                $variant,
            )*
        }

        impl From<$hook> for $choice {
            fn from(hook: $hook) -> Self {
                match hook {
                    $($hook::$variant => Self::$variant,)*
                }
            }
        }

        impl fmt::Display for $choice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self {
                    Self::$auto => "auto",
                    $(Self::$variant => $label,)*
                })
            }
        }
    };
}

hooks! {
    /// How an XDP program sits on an interface.
    XdpHook;
    /// How the XDP program is attached.
    XdpMode;
    /// Native if the driver can, else generic, and say so
    Auto;

    /// In the driver.
    Native "native",
    /// In the driver, or fail
    asked;

    /// In the stack, before anything else there.
    Generic "generic",
    /// In the kernel's stack: any interface, slower
    asked;
}

hooks! {
    /// How the egress program sits on an interface.
    EgressHook;
    /// Where the program that records what is sent is attached.
    EgressMode;
    /// TCX if the kernel has it, else clsact
    Auto;

    /// As a TCX link, from kernel 6.6 on.
    Tcx "tcx",
    /// TCX (Linux 6.6 and later), or fail
    asked;

    /// As a filter of the clsact queueing discipline.
    Clsact "clsact",
    /// A filter of the clsact qdisc
    asked;
}
