//! What only the verifier, which follows every path, needs to be told.

use core::{arch::asm, ffi::c_void};

/// Returns `value`, of which the compiler forgets where it came from, and so which bounds it has.
/// A bound that is checked behind this is an instruction, which a verifier sees: those before
/// 6.13 do not know that a port is below 65,536 once its bytes were swapped.
#[inline(always)]
pub fn opaque(mut value: usize) -> usize {
    // SAFETY: a register is copied to itself. An empty template would leave a source line without
    // an instruction, which the kernel refuses.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) }
    value
}

/// Returns `value`, on this path alone: the compiler computes nothing from it before the branch that
/// leads here, such as a place behind a pointer that is not known to be one yet.
#[inline(always)]
pub fn only_here(mut value: usize) -> usize {
    // SAFETY: as in `opaque`. It is not said to be pure, so it stays where it is.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) }
    value
}

/// Returns `value`, of which the verifier forgets what it knew, so that paths which differ only
/// in it are one path from here on.
///
/// `unknown` is any word the verifier knows nothing about.
#[inline(always)]
pub fn forget(value: usize, unknown: u32) -> usize {
    let unknown = unknown as usize;
    let sum = opaque(value.wrapping_add(unknown));

    opaque(sum.wrapping_sub(unknown))
}

/// Reads the word at `OFFSET` of a program's context, which must have one there.
///
/// By hand, because the kernel accepts no other pointer into a context than the one it gave, and
/// the compiler likes to share the sum of that and an offset.
#[inline(always)]
pub fn context_word<const OFFSET: usize>(ctx: *const c_void) -> u32 {
    context_pointer::<OFFSET>(ctx) as u32
}

/// As [`context_word`], for the words that the kernel turns into pointers to packet memory.
#[inline(always)]
pub fn context_pointer<const OFFSET: usize>(ctx: *const c_void) -> usize {
    let word: u64;
    // SAFETY: the kernel checks every access to a context before it runs the program.
    unsafe {
        asm!(
            "{word} = *(u32 *)({ctx} + {offset})",
            word = out(reg) word,
            ctx = in(reg) ctx,
            offset = const OFFSET,
            options(pure, readonly, nostack)
        );
    }

    word as usize
}
