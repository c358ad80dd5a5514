//! The command `portguard`.

fn main() {}
