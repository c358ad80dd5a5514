//! Makes another frame of the one that was there.

use crate::recipe::Recipe;

/// Headers end before this, and the verifier wants a limit.
const MAX_OFFSET: usize = 0x7f;

/// The directly readable part of a frame.
#[derive(Clone, Copy)]
pub struct Linear {
    /// The address of its first byte.
    pub start: usize,
    /// The address behind its last byte.
    pub end: usize,
}

impl Linear {
    /// Where a word of the frame is, unless the frame ends first.
    #[inline(always)]
    fn at<T>(self, offset: u32) -> Option<*mut T> {
        let word = self.start + (offset as usize & MAX_OFFSET);
        if word + size_of::<T>() > self.end {
            return None;
        }

        Some(word as *mut T)
    }

    /// Writes a field, and returns by how much that changes a ones' complement sum.
    #[inline(always)]
    fn set_u16(self, offset: u32, value: u16) -> u32 {
        match self.at::<u16>(offset) {
            Some(field) if offset != 0 => {
                // SAFETY: the frame reaches to the end of the field.
                let old = unsafe { field.read_unaligned() };
                // SAFETY: as above.
                unsafe { field.write_unaligned(value) };
                u32::from(!old) + u32::from(value)
            }
            Some(_) | None => 0,
        }
    }

    /// As [`set_u16`](Self::set_u16), four bytes as they are in memory.
    #[inline(always)]
    fn set_u32(self, offset: u32, value: u32) -> u32 {
        match self.at::<u32>(offset) {
            Some(field) if offset != 0 => {
                // SAFETY: the frame reaches to the end of the field.
                let old = !unsafe { field.read_unaligned() };
                // SAFETY: as above.
                unsafe { field.write_unaligned(value) };
                (old & 0xffff) + (old >> 16) + (value & 0xffff) + (value >> 16)
            }
            Some(_) | None => 0,
        }
    }

    #[inline(always)]
    fn set_link(self, link: &[u32; 4]) {
        if let Some(header) = self.at::<[u32; 4]>(0) {
            // SAFETY: the frame reaches to the end of these bytes.
            unsafe { header.write_unaligned(*link) };
        }
    }

    /// Brings a checksum up to date (RFC 1624): `change` is the sum of what was written.
    #[inline(always)]
    fn amend(self, offset: u32, change: u32) {
        if let Some(field) = self.at::<u16>(offset)
            && offset != 0
        {
            // SAFETY: the frame reaches to the end of the field.
            let old = unsafe { field.read_unaligned() };
            let sum = u32::from(!old) + change;
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            // SAFETY: as above.
            unsafe { field.write_unaligned(!(sum as u16)) };
        }
    }
}

/// Writes what `recipe` says of the frame with this number.
#[inline(always)]
pub fn rewrite(frame: Linear, recipe: &Recipe, number: u32) {
    let dice = scatter(number);
    let (address, remote_port, local_port) =
        if (dice as u32 & (Recipe::ALL - 1)) < recipe.known_share {
            let ports = recipe.flow_ports.max(1);
            let turn = if recipe.in_order != 0 {
                number % recipe.flows.max(1)
            } else {
                choose((dice >> 16) as u32, recipe.flows)
            };
            (
                recipe.remote_address,
                recipe.remote_port + turn / ports,
                recipe.flow_port + turn % ports,
            )
        } else {
            // 16.0.0.0 to 79.255.255.255: unicast, and nobody's here.
            let address = (0x10 + (dice >> 16 & 0x3f)) as u32 | (dice >> 24) as u32 & 0xffff_ff00;
            (
                address,
                1024 + (dice >> 48) as u32 % 64_000,
                recipe.unsolicited_port + choose((dice >> 16) as u32, recipe.unsolicited_ports),
            )
        };

    if recipe.link[0] != 0 {
        frame.set_link(&recipe.link);
    }
    let moved = frame.set_u32(recipe.address_at, address);
    let named = frame.set_u16(recipe.id_at, number as u16);
    let aimed = frame.set_u16(recipe.local_port_at, (local_port as u16).to_be())
        + frame.set_u16(recipe.remote_port_at, (remote_port as u16).to_be());
    frame.amend(recipe.ip_checksum_at, moved + named);
    frame.amend(recipe.transport_checksum_at, moved + aimed);
}

/// One of `count`, as even as a 32-bit number is.
#[inline(always)]
fn choose(dice: u32, count: u32) -> u32 {
    ((u64::from(dice) * u64::from(count)) >> 32) as u32
}

/// A number that looks random and is another one for each `number`: SplitMix64, Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014. The helper for random numbers
/// takes longer than all the rest.
#[inline(always)]
fn scatter(number: u32) -> u64 {
    let mixed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);

    mixed ^ (mixed >> 31)
}
