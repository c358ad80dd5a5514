//! The kernel programs, their maps, and how they are attached.

pub mod attach;
pub mod clock;
pub mod grace;
pub mod maps;
pub mod pins;
pub mod programs;
pub mod syscalls;
