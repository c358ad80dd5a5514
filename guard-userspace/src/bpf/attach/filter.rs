//! Filters of the clsact qdisc on what an interface sends, and which of them are ours.

use std::{io, ops::RangeInclusive};

use netlink_packet_core::NlasIterator;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcHandle, TcMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{base::text::plain, bpf::programs, host::netlink};

/// `RTM_NEWTFILTER`, include/uapi/linux/rtnetlink.h.
const NEW_FILTER: u16 = 44;
/// The place of filters on what is sent: `TC_H_CLSACT` and `TC_H_MIN_EGRESS`,
/// include/uapi/linux/pkt_sched.h.
const EGRESS: u32 = 0xffff_fff3;
/// `struct tcmsg`: family, interface, handle, parent and info.
const HEADER: usize = 20;
/// `ETH_P_ALL`, include/uapi/linux/if_ether.h.
const EVERY_PROTOCOL: u16 = 3;

/// So many filters are looked at. Hosts that offload switching have a hundred thousand.
const MOST: usize = 512;

/// So many priorities behind the last filter that was looked at are looked at as well: ours is at the
/// first that it can have.
const MORE_PRIORITIES: u16 = 16;

/// `TCA_KIND`, include/uapi/linux/rtnetlink.h.
const KIND: u16 = 1;
/// `TCA_OPTIONS`.
const OPTIONS: u16 = 2;
/// `TCA_CHAIN`.
const CHAIN: u16 = 11;
/// `TCA_BPF_NAME`, include/uapi/linux/pkt_cls.h.
const BPF_NAME: u16 = 7;
/// `TCA_BPF_ID`.
const BPF_ID: u16 = 11;

/// Before all others.
pub(super) const FIRST_PRIORITY: u16 = 1;
/// Behind all others.
pub(super) const LAST_PRIORITY: u16 = u16::MAX;
/// Where earlier versions had theirs, with the handles from 1 to 16.
const EARLIER_PRIORITY: u16 = 0xfff0;
const EARLIER_HANDLES: RangeInclusive<u32> = 1..=16;

/// The handles of our filters, which no other tool is likely to choose. There are several, because a
/// run that takes over from an earlier one leaves its filter in force for a while, and each run
/// that is killed meanwhile leaves one more.
pub(super) const HANDLES: RangeInclusive<u32> = 0x7067_0001..=0x7067_0010;

/// What a filter of ours does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ours {
    /// It records and counts.
    Egress,
    /// It records what has changed since.
    Last,
}

/// A filter on what an interface sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcFilter {
    /// Such as `bpf` or `u32`.
    pub kind: String,
    /// Lower ones come first.
    pub priority: u16,
    /// Whether it is asked about packets of every protocol.
    pub every_protocol: bool,
    /// Its number among those of its priority.
    pub handle: u32,
    /// The name of its program, where it is of kind `bpf`.
    pub name: Option<String>,
    /// The id of its program.
    pub program: Option<u32>,
}

impl TcFilter {
    /// What it does, if it is ours, whichever run has added it.
    pub fn ours(&self) -> Option<Ours> {
        let name = self.name.as_deref()?;
        let does = match name {
            programs::EGRESS => Ours::Egress,
            programs::EGRESS_LAST => Ours::Last,
            _ => return None,
        };
        let earlier = self.priority == EARLIER_PRIORITY && EARLIER_HANDLES.contains(&self.handle);

        (self.kind == "bpf" && (earlier || HANDLES.contains(&self.handle))).then_some(does)
    }

    /// Whether another filter of ours can have the same priority, where it runs before this one.
    pub(super) fn admits_ours(&self) -> bool {
        self.kind == "bpf" && self.every_protocol
    }

    /// Such as `u32 filter, priority 10, handle 800::800`.
    pub(super) fn describe(&self) -> String {
        let handle = match self.kind.as_str() {
            "u32" => {
                let (table, bucket, node) = (
                    self.handle >> 20,
                    self.handle >> 12 & 0xff,
                    self.handle & 0xfff,
                );
                match bucket {
                    0 => format!("{table:x}::{node:x}"),
                    bucket => format!("{table:x}:{bucket:x}:{node:x}"),
                }
            }
            _ => format!("{:#x}", self.handle),
        };
        let program = match (&self.name, self.program) {
            (Some(name), Some(id)) => format!(", program {} (id {id})", plain(name)),
            (Some(name), None) => format!(", program {}", plain(name)),
            (None, Some(id)) => format!(", program with id {id}"),
            (None, None) => String::new(),
        };

        format!(
            "{} filter, priority {}, handle {handle}{program}",
            plain(&self.kind),
            self.priority
        )
    }
}

/// The filters on what the interface with this index sends, in the order in which they run. None
/// where it has no clsact. Of more than can be looked at every two seconds, the first, of each of the
/// next priorities one, and ours.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn filters(index: u32) -> io::Result<Vec<TcFilter>> {
    let mut filters = list(index, 0)?;
    if filters.len() >= MOST {
        let next = filters
            .last()
            .map_or(0, |last| last.priority.saturating_add(1));
        let next = next..next.saturating_add(MORE_PRIORITIES).min(EARLIER_PRIORITY);
        for priority in next.chain([EARLIER_PRIORITY, LAST_PRIORITY]) {
            let found = list(index, priority)?;
            let found = worth_knowing(&found).filter(|one| !filters.contains(one));
            let found: Vec<_> = found.cloned().collect();
            filters.extend(found);
        }
    }

    Ok(filters)
}

/// Of the filters of one priority, ours, and one of the others, in the order in which they run.
fn worth_knowing(filters: &[TcFilter]) -> impl Iterator<Item = &TcFilter> {
    let mut others = 0;

    filters.iter().filter(move |one| {
        let foreign = one.ours().is_none();
        others += usize::from(foreign);
        !foreign || others == 1
    })
}

/// The first filters of this priority, or of every one where it is 0.
fn list(index: u32, priority: u16) -> io::Result<Vec<TcFilter>> {
    let netlink = netlink::open_to_attach(NETLINK_ROUTE)?;
    let mut ask = TcMessage::default();
    ask.header.index = index as i32;
    ask.header.parent = TcHandle::from(EGRESS);
    ask.header.info = u32::from(priority) << 16;
    let request = netlink::request(RouteNetlinkMessage::GetTrafficFilter(ask));
    let mut filters = Vec::new();
    let listed = netlink::dump(&netlink, &request, |kind, payload| {
        if kind == NEW_FILTER {
            filters.extend(read(payload));
        }
        if filters.len() < MOST {
            return Ok(());
        }
        // The rest is not read: the kernel forgets it with the socket.
        Err(io::ErrorKind::StorageFull.into())
    });
    match listed {
        Ok(()) => Ok(filters),
        Err(error) if error.kind() == io::ErrorKind::StorageFull && filters.len() >= MOST => {
            Ok(filters)
        }
        // No such qdisc, or no such interface any more.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::ENODEV | libc::ENOENT)
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Whether a filter of ours, whichever run has added it, is on what the interface with this index
/// sends.
///
/// # Errors
/// When the kernel refuses to list filters.
pub fn has_filter(index: u32) -> io::Result<bool> {
    Ok(filters(index)?.iter().any(|filter| filter.ours().is_some()))
}

/// Whether a filter runs the program with this id on what the interface with this index sends.
///
/// # Errors
/// When the kernel refuses to list filters.
pub fn has_program(index: u32, program: u32) -> io::Result<bool> {
    Ok(filters(index)?
        .iter()
        .any(|filter| filter.program == Some(program)))
}

/// Reads the message about a filter. None where it is about something else, such as an empty
/// priority, a table of u32, or a chain that only a filter can lead to.
pub(crate) fn read(message: &[u8]) -> Option<TcFilter> {
    let word = |offset: usize| {
        let bytes = message.get(offset..offset + 4)?;
        Some(u32::from_ne_bytes(*bytes.first_chunk()?))
    };
    let (handle, info) = (word(8)?, word(16)?);
    let attributes = message.get(HEADER..)?;
    let kind = text(attribute(attributes, KIND)?.as_slice());
    let number = |bytes: Vec<u8>| Some(u32::from_ne_bytes(*bytes.first_chunk()?));
    let chain = attribute(attributes, CHAIN).and_then(number).unwrap_or(0);
    let table = kind == "u32" && handle & 0xfff == 0;
    if handle == 0 || chain != 0 || table {
        return None;
    }
    let options = attribute(attributes, OPTIONS).unwrap_or_default();
    let of_bpf = |attribute_kind| {
        (kind == "bpf")
            .then(|| attribute(&options, attribute_kind))
            .flatten()
    };

    Some(TcFilter {
        priority: (info >> 16) as u16,
        every_protocol: u16::from_be(info as u16) == EVERY_PROTOCOL,
        handle,
        name: of_bpf(BPF_NAME).map(|name| text(&name)),
        program: of_bpf(BPF_ID).and_then(number),
        kind,
    })
}

/// The value of the first attribute of this kind.
fn attribute(attributes: &[u8], kind: u16) -> Option<Vec<u8>> {
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == kind)
        .map(|attribute| attribute.value().to_vec())
}

/// Up to the zero byte that ends it.
fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();

    String::from_utf8_lossy(bytes).into_owned()
}
