//! How often a test does what it repeats.

use std::env;

/// Names the number of rounds to anyone who wants more than fit into CI.
const VARIABLE: &str = "PORTGUARD_TEST_ROUNDS";

/// So many rounds, unless `PORTGUARD_TEST_ROUNDS` asks for another number; on an emulated
/// machine, whose processors are tens of times slower, a quarter.
pub fn rounds(usual: usize) -> usize {
    match asked() {
        Some(asked) => asked,
        None if emulated() => usual.div_ceil(4),
        None => usual,
    }
}

/// The number of rounds that was asked for, by somebody who has time.
pub fn asked() -> Option<usize> {
    let asked = env::var(VARIABLE).ok()?;
    Some(asked.parse().expect("PORTGUARD_TEST_ROUNDS is a number"))
}

/// Whether this is a guest that `cargo xtask test --kernel` has booted.
pub fn emulated() -> bool {
    env::var_os("PORTGUARD_DISPOSABLE_MACHINE").is_some()
}
