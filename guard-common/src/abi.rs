//! What the daemon and the programs share: the layout of the maps and of their values.

pub mod config;

pub mod device;

pub mod page;

pub mod state;

pub mod layout;
