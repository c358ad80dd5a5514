//! What only the verifier, which follows every path, needs to be told.

use core::arch::asm;

/// Returns `value`, of which the compiler forgets where it came from, and so which bounds it has.
#[inline(always)]
fn opaque(mut value: usize) -> usize {
    // SAFETY: a register is copied to itself. An empty template would leave a source line without
    // an instruction, which the kernel refuses.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) }
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

/// Returns `port` as an index whose bound is an instruction. The compiler knows that 16 bits are
/// below 65,536; a verifier before 6.13 forgets it where the bytes of a port are swapped.
#[inline(always)]
pub fn index(port: u16) -> usize {
    opaque(usize::from(port)) & 0xffff
}
