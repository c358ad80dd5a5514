//! What is made of what was observed, for people: pure, and in bounded memory.

pub mod ports;
