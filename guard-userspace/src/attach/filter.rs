//! Filters of the clsact qdisc, and which of them is ours.

use anyhow::Context;
use futures_util::TryStreamExt;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use rtnetlink::Handle;

use crate::programs;

/// Whether our filter is on what the interface with this index sends.
///
/// # Errors
/// When the kernel refuses to list filters.
pub async fn has_filter(netlink: &Handle, index: u32) -> anyhow::Result<bool> {
    let filters: Result<Vec<_>, _> = netlink
        .traffic_filter(index as i32)
        .get()
        .egress()
        .execute()
        .try_collect()
        .await;
    let filters = match filters {
        Ok(filters) => filters,
        // No such qdisc, or no such interface any more.
        Err(rtnetlink::Error::NetlinkError(message))
            if matches!(
                -message.raw_code(),
                libc::EINVAL | libc::ENODEV | libc::ENOENT
            ) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(error).context("rtnetlink: list filters"),
    };

    Ok(filters.iter().any(ours))
}

/// Ours has its priority, one of its handles, and the name of its program.
pub(crate) fn ours(filter: &TcMessage) -> bool {
    let priority = (filter.header.info >> 16) as u16;
    let handle = u32::from(filter.header.handle);
    let named = filter.attributes.iter().any(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().any(|option| {
            matches!(option, TcOption::Bpf(TcFilterBpfOption::ProgName(name)) if name == programs::EGRESS)
        }),
        _ => false,
    });

    let handles =
        u32::from(*super::CLSACT_HANDLES.start())..=u32::from(*super::CLSACT_HANDLES.end());

    priority == super::CLSACT_PRIORITY && handles.contains(&handle) && named
}
