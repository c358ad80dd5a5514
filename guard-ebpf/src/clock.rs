//! The clock of both programs.

use aya_ebpf::{helpers::bpf_jiffies64, macros::classifier, programs::TcContext};
use guard_common::flow::timer::JIFFIES_PER_TICK_SHIFT;

/// The time in ticks. The verifier replaces the helper by one load, which makes this the only
/// clock that costs nothing.
#[inline(always)]
pub fn ticks() -> u32 {
    // SAFETY: the helper has no arguments.
    let jiffies = unsafe { bpf_jiffies64() };
    (jiffies >> JIFFIES_PER_TICK_SHIFT) as u32
}

/// Tells the daemon the time in jiffies, as the first eight bytes of the frame: attached nowhere,
/// run by hand.
#[classifier]
pub fn clock(ctx: TcContext) -> i32 {
    // SAFETY: the helper has no arguments.
    let jiffies: u64 = unsafe { bpf_jiffies64() };
    match ctx.store(0, &jiffies, 0) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}
