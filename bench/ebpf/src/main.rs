//! What portguard is measured against and with: programs that do nothing, and a generator that
//! makes each frame another one.
#![no_std]
#![no_main]

mod recipe;
mod rewrite;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    btf_maps::{Array, PerCpuArray, ProgramArray},
    helpers::bpf_redirect,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::{
    recipe::Recipe,
    rewrite::{Linear, rewrite},
};

/// What is written over each frame. Written by the bench between two measurements.
#[btf_map(name = "recipe")]
static RECIPE: Array<Recipe, 1> = Array::new();

/// The number of the next frame. Written by the programs.
#[btf_map(name = "number")]
static NUMBER: PerCpuArray<u32, 1> = PerCpuArray::new();

/// The XDP program that is measured. Written by the bench.
#[btf_map(name = "subject")]
static SUBJECT: ProgramArray<1> = ProgramArray::new();

/// The classifier that is measured. Written by the bench.
#[btf_map(name = "recorder")]
static RECORDER: ProgramArray<1> = ProgramArray::new();

/// The least that a program can do to drop.
#[xdp(frags)]
pub fn bare_drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// The least that a program can do to pass.
#[xdp(frags)]
pub fn bare_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// The least that a program can do against a flood of UDP over IPv4 beside a client of TCP.
#[xdp(frags)]
pub fn bare_udp_drop(ctx: XdpContext) -> u32 {
    const PROTOCOL: usize = 23;
    const UDP: u8 = 17;

    let protocol = ctx.data() + PROTOCOL;
    if protocol + 1 > ctx.data_end() {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: the frame reaches behind this byte.
    if unsafe { *(protocol as *const u8) } == UDP {
        return xdp_action::XDP_DROP;
    }

    xdp_action::XDP_PASS
}

/// The least that a classifier can do.
#[classifier]
pub fn bare_next(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Sends another frame each time it is run.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    let Some(recipe) = vary(Linear {
        start: ctx.data(),
        end: ctx.data_end(),
    }) else {
        return xdp_action::XDP_ABORTED;
    };

    // SAFETY: the helper takes no memory.
    (unsafe { bpf_redirect(recipe.interface, 0) }) as u32
}

/// Shows another frame each time it is run to the program that is measured.
#[xdp(frags)]
pub fn vary_received(ctx: XdpContext) -> u32 {
    vary(Linear {
        start: ctx.data(),
        end: ctx.data_end(),
    });
    // SAFETY: nothing here has to be dropped.
    unsafe { SUBJECT.tail_call(&ctx, 0) };

    xdp_action::XDP_ABORTED
}

/// Shows another frame each time it is run to the classifier that is measured.
#[classifier]
pub fn vary_sent(ctx: TcContext) -> i32 {
    vary(Linear {
        start: ctx.data(),
        end: ctx.data_end(),
    });
    // SAFETY: nothing here has to be dropped.
    unsafe { RECORDER.tail_call(&ctx, 0) };

    // A verdict that no measured program gives.
    i32::MAX
}

#[inline(always)]
fn vary(frame: Linear) -> Option<&'static Recipe> {
    let recipe = RECIPE.get(0)?;
    let next = NUMBER.get_ptr_mut(0)?;
    // SAFETY: the element is this processor's own, and nothing interrupts a program that uses it.
    let number = unsafe { *next };
    // SAFETY: as above.
    unsafe { *next = number.wrapping_add(1) };
    rewrite(frame, recipe, number);

    Some(recipe)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects an endless loop, and with it any panic that could be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
