//! Sessions in which the reference, the policy in memory or the programs once differed. Most were
//! printed by the fuzzer, and their frames are bytes.

use guard_reference::memory::Purpose;

use crate::differential::found::{Found, found as case};

/// Every such session.
pub fn found() -> Vec<Found> {
    vec![
        case("a rescue by address has no timer of a port")
            .policy(|policy| policy.by_address = true)
            .marks(Purpose::Udp, 40_000, 0)
            // protocol 17, Whole, 10.9.0.1 port 53 to 10.9.0.2 port 40000
            .receives(
                "02000000000202000000000108004500001c0001000040110000\
                 0a0900010a09000200359c4000080000",
                "rescued",
            )
            .waits(9)
            .receives(
                "02000000000202000000000108004500001c0001000040110000\
                 0a0900010a09000200359c4000080000",
                "known_flow",
            ),
    ]
}
