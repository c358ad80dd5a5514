//! A flow in a map, and how packets change it.

use core::cell::UnsafeCell;

use crate::{
    flow::{Flow, Phase},
    wire::TcpFlags,
};

/// A flow in a map, where other processors read and write it too.
#[repr(C, align(8))]
pub struct FlowCell(UnsafeCell<Flow>);

impl FlowCell {
    /// A flow that is not in a map.
    pub const fn new(flow: Flow) -> Self {
        Self(UnsafeCell::new(flow))
    }

    /// The flow as it is now. Each field is read once.
    #[inline(always)]
    pub fn load(&self) -> Flow {
        // SAFETY: the cell is a valid, aligned `Flow` for as long as `self` lives, and a volatile
        // read of a field tolerates that somebody else writes it.
        unsafe {
            let flow = self.0.get();
            Flow {
                last_seen: (&raw const (*flow).last_seen).read_volatile(),
                phase: (&raw const (*flow).phase).read_volatile(),
                fin_in: (&raw const (*flow).fin_in).read_volatile(),
                fin_out: (&raw const (*flow).fin_out).read_volatile(),
                reset: (&raw const (*flow).reset).read_volatile(),
            }
        }
    }

    /// The flow as it is now, read at once and laid out as [`Flow::word`] has it.
    #[inline(always)]
    pub fn load_word(&self) -> u64 {
        // SAFETY: the cell is as long and as aligned as a word for as long as `self` lives, and a
        // volatile read tolerates that somebody else writes it.
        unsafe { self.0.get().cast::<u64>().read_volatile() }
    }

    /// Notes that a packet counted for the flow at `now`.
    #[inline(always)]
    pub fn seen(&self, now: u32) {
        self.set_last_seen(now);
    }

    /// Replaces the flow, the time first: until the rest is written, the flow is merely young.
    #[inline(always)]
    pub fn restart(&self, flow: Flow) {
        self.set_last_seen(flow.last_seen);
        self.set_phase(flow.phase);
        self.set_fin_in(flow.fin_in);
        self.set_fin_out(flow.fin_out);
        self.set_reset(flow.reset);
    }

    /// Takes note of a packet from the peer. `flow` is what [`load`](Self::load) returned.
    ///
    /// A RST starts the transitory timer once. Whoever forges more of them cannot prolong it, and
    /// any other packet of either side cancels it, so a forged RST costs a live flow nothing.
    #[inline(always)]
    pub fn received(&self, flow: Flow, flags: TcpFlags, now: u32) {
        if flags.rst() {
            self.start_transitory(flow, now);
            return;
        }

        self.hear(flow, now);
        if flags.fin() && flow.fin_in == 0 {
            self.set_fin_in(1);
        }
    }

    /// Takes note of a packet of this host. `flow` is what [`load`](Self::load) returned.
    #[inline(always)]
    pub fn sent(&self, flow: Flow, flags: TcpFlags, now: u32) {
        if flags.opens() {
            let opening = Flow::new(Phase::Opening, now);
            if flow != opening {
                self.restart(opening);
            }
            return;
        }
        if flags.rst() {
            self.start_transitory(flow, now);
            return;
        }

        self.hear(flow, now);
        if flags.fin() && flow.fin_out == 0 {
            self.set_fin_out(1);
        }
    }

    #[inline(always)]
    fn start_transitory(&self, flow: Flow, now: u32) {
        if flow.reset == 0 {
            self.set_last_seen(now);
            self.set_reset(1);
        }
    }

    /// Anything but a RST: the flow is in use.
    #[inline(always)]
    fn hear(&self, flow: Flow, now: u32) {
        if flow.last_seen != now {
            self.set_last_seen(now);
        }
        if flow.phase == Phase::Opening as u8 {
            self.set_phase(Phase::Established as u8);
        }
        if flow.reset != 0 {
            self.set_reset(0);
        }
    }
}

/// One volatile store a field, of the field's own width.
macro_rules! stores {
    ($($name:ident: $field:ident, $width:ty;)+) => {
        impl FlowCell {
            $(
                #[inline(always)]
                fn $name(&self, value: $width) {
                    // SAFETY: the cell is a valid, aligned `Flow` for as long as `self` lives, and
                    // a store of one whole field cannot disturb its neighbours.
                    unsafe { (&raw mut (*self.0.get()).$field).write_volatile(value) }
                }
            )+
        }
    };
}

stores! {
    set_last_seen: last_seen, u32;
    set_phase: phase, u8;
    set_fin_in: fin_in, u8;
    set_fin_out: fin_out, u8;
    set_reset: reset, u8;
}
