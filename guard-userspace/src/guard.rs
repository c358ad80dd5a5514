//! What keeps the guard in force, and the maps true.

pub mod alarms;
pub mod attachment;
pub mod evidence;
pub mod fault_injection;
pub mod lifecycle;
pub mod listeners;
pub mod pressure;
pub mod repair;
pub mod seed;
pub mod sweep;
pub mod timers;
