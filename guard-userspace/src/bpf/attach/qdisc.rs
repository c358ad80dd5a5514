//! The qdisc that filters of what is sent hang on.

use std::io;

use anyhow::Context;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::if_nametoindex;

use crate::{base::failure::Failure, host::netlink};

/// `RTM_NEWQDISC`, include/uapi/linux/rtnetlink.h.
const NEW_QDISC: u16 = 36;

/// `TC_H_INGRESS`, include/uapi/linux/pkt_sched.h: where clsact sits too.
const INGRESS: u32 = 0xffff_fff1;

/// Refuses an interface whose place for clsact is taken by the older qdisc `ingress`. The kernel
/// takes an egress filter there without a word, and runs it on what is received
/// (`ingress_tcf_block`, net/sched/sch_ingress.c).
///
/// # Errors
/// When it is: exit code 69.
pub fn require_room_for_clsact(name: &str) -> Result<(), Failure> {
    let kind = kind_at_ingress(name).with_context(|| format!("{name}: list its qdiscs"))?;
    match kind.as_deref() {
        None | Some("clsact") => Ok(()),
        Some(other) => Err(Failure::unavailable(format!(
            "{name}: cannot record what is sent: its qdisc {other} is in the place of clsact"
        ))
        .remedy(format!(
            "tc qdisc del dev {name} {other}, and let clsact hold its filters, or run Linux 6.6 \
             or later with --egress-hook auto"
        ))),
    }
}

fn kind_at_ingress(name: &str) -> io::Result<Option<String>> {
    let index = if_nametoindex(name)?;
    let netlink = netlink::open_to_attach(NETLINK_ROUTE)?;
    let ask = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let mut kind = None;
    netlink::dump(&netlink, &netlink::request(ask), |message, payload| {
        // Qdiscs that cannot be read are of kinds that sit elsewhere.
        if message == NEW_QDISC
            && let Ok(qdisc) = TcMessage::parse(payload)
            && qdisc.header.index == index as i32
            && u32::from(qdisc.header.parent) == INGRESS
        {
            kind = qdisc
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    TcAttribute::Kind(kind) => Some(kind),
                    _ => None,
                });
        }
        Ok(())
    })?;

    Ok(kind)
}
