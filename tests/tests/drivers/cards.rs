//! Network cards, which only the guests of `cargo xtask test --drivers` have.
