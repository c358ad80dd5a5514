//! The kernel side of portguard: entry points without policy.
//!
//! What a frame is and what becomes of it is decided in guard-common; here frames are made
//! readable ([`frame`]), the maps are declared ([`maps`]) and handed over as [`datapath`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod clock;
mod datapath;
mod frame;
mod kernel;
mod maps;
mod verifier;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use guard_common::{
    outcome::Verdict,
    policy::{egress, ingress},
};

use crate::{
    datapath::KernelDatapath,
    frame::{PagedFrame, TcFrame, XdpFrame},
};

/// Decides about received frames, on kernels before 5.18, which know frames of one piece only.
#[xdp]
#[inline(always)]
pub fn ingress(ctx: XdpContext) -> u32 {
    guard(&ctx)
}

/// Decides about received frames.
#[xdp(frags)]
#[inline(always)]
pub fn ingress_frags(ctx: XdpContext) -> u32 {
    guard(&ctx)
}

#[inline(always)]
fn guard(ctx: &XdpContext) -> u32 {
    let Some(datapath) = KernelDatapath::received(ctx) else {
        return xdp_action::XDP_PASS;
    };

    ingress::ingress_then(&XdpFrame::new(ctx), &datapath, |decision, verdict| {
        datapath.count(decision, verdict);
        #[cfg(feature = "log")]
        if decision.outcome.verdict() == Verdict::Drop {
            aya_log_ebpf::info!(ctx, "drop, outcome {}", decision.outcome as u8);
        }

        match verdict {
            Verdict::Pass => xdp_action::XDP_PASS,
            Verdict::Drop => xdp_action::XDP_DROP,
        }
    })
}

/// Records what this host sends, and lets the next program have it.
#[classifier]
#[inline(always)]
pub fn egress(ctx: TcContext) -> i32 {
    if let Some(datapath) = KernelDatapath::sent(&ctx) {
        let finish = |decision| datapath.count(decision, Verdict::Pass);
        egress::egress_then(&TcFrame::new(&ctx), &datapath, finish, |_| {
            finish(egress::egress_general(&PagedFrame::new(&ctx), &datapath));
        });
    }

    TC_ACT_UNSPEC
}

/// Records what has become of a frame behind [`egress`]: runs last, while others stand between that may
/// change it. Every frame was counted there. What was not changed is a known flow by now; the
/// general way alone is slower, and quickly verified.
#[classifier]
#[inline(always)]
pub fn egress_last(ctx: TcContext) -> i32 {
    if let Some(datapath) = KernelDatapath::sent(&ctx) {
        egress::egress_general(&PagedFrame::new(&ctx), &datapath);
    }

    TC_ACT_UNSPEC
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects an endless loop, and with it any panic that could be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
