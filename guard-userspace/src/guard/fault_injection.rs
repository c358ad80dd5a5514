//! What the daemon does to keep connections alive, part by part.

use std::time::Duration;

use guard_common::abi::layout::LAYOUT_VERSION;

/// What a daemon does beside what it is told by its settings.
///
/// `portguard` does all of it, always. Tests switch parts off to show that each of them is needed:
/// a test that something survives says nothing unless it fails without what keeps it alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parts {
    /// Connected sockets are put into the maps, at the start and before ports become guarded.
    pub seeding: bool,
    /// So are the flows that only conntrack knows, which sweeps put back later.
    pub conntrack: bool,
    /// A sweep marks the ports of flows as in use.
    pub flow_marks: bool,
    /// A sweep marks the ports of connected sockets as in use.
    pub socket_marks: bool,
    /// A sweep marks the tuples of both in the filter.
    pub tuple_marks: bool,
    /// A sweep puts back the flows of connected sockets that the maps have forgotten.
    pub repair: bool,
    /// A sweep puts back the flows that NAT translates, as conntrack knows them.
    pub translated: bool,
    /// A sweep takes out what has expired where maps fill.
    pub reclaim: bool,
    /// The shortest rest between two sweeps, but before one that fills a filter of another length.
    pub sweep_rest: Duration,
    /// Once a change is in force, sockets can be listed. Without this, there never is time for all of
    /// them before it is.
    pub late_list: bool,
    /// Egress records what the next policy guards from before the look at sockets on.
    pub both_recorded: bool,
    /// Flows of an earlier run, in maps that are not used any more, are copied.
    pub carrying: bool,
    /// The layout of maps that it says is its own.
    pub layout: u32,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            seeding: true,
            conntrack: true,
            flow_marks: true,
            socket_marks: true,
            tuple_marks: true,
            repair: true,
            translated: true,
            reclaim: true,
            sweep_rest: Duration::from_secs(10),
            late_list: true,
            both_recorded: true,
            carrying: true,
            layout: LAYOUT_VERSION,
        }
    }
}
