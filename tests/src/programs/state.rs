//! The map `state`, as bytes that the kernel shares: it is too large for a stack.

use std::mem::offset_of;

use guard_common::{
    abi::{
        config::Config,
        page::Page,
        state::{Element, State},
    },
    ports::{class::PORTS, occupancy::Use},
};

use super::element;
use crate::setup::Setup;

/// How long it is, with the tuple filter.
pub(super) const SIZE: usize = size_of::<Element>();

const EPOCH: usize = offset_of!(State, config) + offset_of!(Config, epoch);

/// Makes this what a guard has that has seen nothing yet.
pub(super) fn set(state: &mut [u8], setup: Setup) {
    state.fill(0);
    set_config(state, &setup.config());
    for (index, page) in setup.pages().iter().enumerate() {
        set_page(state, index, page);
    }
}

/// Fills one of the two pages.
pub(super) fn set_page(state: &mut [u8], index: usize, page: &Page) {
    let at = offset_of!(State, pages) + index * size_of::<Page>();
    put(state, at, element::bytes(page));
}

/// Puts another configuration in force.
pub(super) fn set_config(state: &mut [u8], config: &Config) {
    put(state, offset_of!(State, config), element::bytes(config));
}

/// Puts another epoch in force.
pub(super) fn set_epoch(state: &mut [u8], epoch: u32) {
    put(state, EPOCH, &epoch.to_ne_bytes());
}

/// The epochs in which each port was last in use, one use behind the other.
pub(super) fn occupancy(state: &[u8]) -> &[u8] {
    let start = offset_of!(State, occupancy);
    &state[start..start + Use::COUNT * PORTS]
}

fn put(state: &mut [u8], at: usize, bytes: &[u8]) {
    state[at..at + bytes.len()].copy_from_slice(bytes);
}
