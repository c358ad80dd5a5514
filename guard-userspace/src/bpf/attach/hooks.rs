//! How a program sits on an interface.

/// How an XDP program sits on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpHook {
    /// In the driver.
    Native,
    /// In the stack, before anything else there.
    Generic,
}

impl XdpHook {
    /// The word for it in metrics and JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// How the egress program sits on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EgressHook {
    /// As a TCX link, from kernel 6.6 on.
    Tcx,
    /// As a filter of the clsact queueing discipline.
    Clsact,
}

impl EgressHook {
    /// The word for it in JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}
