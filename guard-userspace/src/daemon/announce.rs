//! What the daemon tells those who started it.

use sd_notify::NotifyState;

use crate::{
    observation::{Attachment, EgressHook, XdpHook},
    range::PortRange,
};

/// Says that every interface is guarded: to stderr, and to systemd.
pub fn ready(attachments: &[Attachment], range: PortRange) {
    for attachment in attachments {
        tracing::info!("{}", headline(attachment, range));
    }
    // Nobody listens where systemd did not start this.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// Says that the guard ends.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

fn headline(attachment: &Attachment, range: PortRange) -> String {
    let name = &attachment.interface;
    let egress = match attachment.egress {
        Some(EgressHook::Tcx) => "TCX egress",
        Some(EgressHook::Clsact) => "clsact egress",
        None => "no egress",
    };
    match attachment.xdp {
        Some(XdpHook::Native) => format!("guarding {name} (native XDP, {egress}), ports {range}"),
        Some(XdpHook::Generic) => format!("guarding {name} (generic XDP, {egress}), ports {range}"),
        None => format!("recording {name} ({egress}), ports {range}"),
    }
}
