//! Flows: what they are looked up by, what is kept of them, and how long they count.

pub mod key;

pub mod timer;

pub mod state;

pub mod adaptive;

pub mod fragment;
