//! What the maps of a run cost.

use std::fs;

use aya::maps::MapType;
use guard_common::ports::bloom;

use super::{CheckReport, cgroup::Room};
use crate::{
    base::failure::Failure,
    bpf::{maps::is_flow_map, programs::Programs},
    config::Settings,
};

/// What the kernel adds to each key and value of a hash map: `struct htab_elem` with its LRU node.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/bpf/hashtab.c#L104>
const ELEMENT: u64 = 48;

/// `struct bucket` of the same file, of which there are as many as entries, rounded up to a power
/// of two.
const BUCKET: u64 = 16;

/// What a start takes beside the maps, for one interface and for each further one: mostly the
/// verifier's memory, which counts as the daemon's. With 72 MiB for all of it a guard of one interface
/// was killed three times of six on Linux 6.18, with 76 it guards.
const START: u64 = 42 << 20;
const FURTHER: u64 = 6 << 20;

/// What the maps take at least.
const SMALLEST: u64 = 8 << 20;

/// What is there to be taken, in bytes, and where the number is from.
struct Available {
    bytes: u64,
    whose: String,
}

/// Says whether the `room` of the memory cgroup is enough to load the programs at all. Without that a
/// check that tries it would be killed.
pub(super) fn suffices(room: Option<&Room>, settings: &Settings, report: &mut CheckReport) -> bool {
    let (needed, Some(room)) = (start(settings) + SMALLEST, room) else {
        return true;
    };
    if room.free >= needed {
        return true;
    }
    let cgroup = limited(room);
    report.problem(
        "memory",
        &Failure::unavailable(format!(
            "a start takes {} even with the smallest maps, and only {}",
            mebibytes(needed),
            cgroup.said()
        ))
        .remedy("raise the limit"),
    );

    false
}

/// Says what the maps would take of the memory that is there: of the memory cgroup, the `room` that
/// there was before the programs were loaded, whose memory the kernel gives back in its own time.
pub(super) fn memory(
    programs: &Programs,
    room: Option<&Room>,
    settings: &Settings,
    report: &mut CheckReport,
) {
    let flows = settings.max_flows.get();
    let maps = maps(programs, flows);
    let text = format!(
        "the maps take {}, four of them {flows} flows each",
        mebibytes(maps)
    );
    let needed = maps + start(settings);
    let tightest = host()
        .into_iter()
        .chain(room.map(limited))
        .min_by_key(|available| available.bytes);
    match tightest {
        Some(available) if needed > available.bytes => report.problem(
            "memory",
            &Failure::unavailable(format!(
                "{text}, a start {} besides, and only {}",
                mebibytes(needed - maps),
                available.said()
            ))
            .remedy("give a smaller --max-flows, or more memory"),
        ),
        _ => report.ok("memory", text),
    }
}

impl Available {
    fn said(&self) -> String {
        format!("{} are available {}", mebibytes(self.bytes), self.whose)
    }
}

fn limited(room: &Room) -> Available {
    Available {
        bytes: room.free,
        whose: format!(
            "in the memory cgroup {}, whose limit is {}",
            room.group.display(),
            mebibytes(room.limit)
        ),
    }
}

fn start(settings: &Settings) -> u64 {
    let interfaces = settings.iface.len() + settings.egress_iface.len();

    START + FURTHER * interfaces.saturating_sub(1) as u64
}

/// The memory of all maps with room for `flows` in each flow map, in bytes.
fn maps(programs: &Programs, flows: u32) -> u64 {
    let processors = aya::util::nr_cpus().unwrap_or(1) as u64;
    let sizes = programs.maps().map(|(name, map)| {
        let entries = match name {
            "state" => bloom::elements(flows),
            name if is_flow_map(name) => flows,
            _ => map.max_entries(),
        };
        let value = rounded(map.value_size());
        match map.map_type() {
            Ok(MapType::LruHash) => hash(entries, map.key_size(), map.value_size()),
            Ok(MapType::PerCpuArray) => u64::from(entries) * value * processors,
            // In bytes.
            Ok(MapType::RingBuf) => u64::from(entries),
            // Grows with what is put in, which is little.
            Ok(MapType::LpmTrie) => 0,
            _ => u64::from(entries) * value,
        }
    });

    sizes.sum()
}

/// The memory of one LRU hash map, in bytes.
fn hash(entries: u32, key: u32, value: u32) -> u64 {
    let element = ELEMENT + rounded(key) + rounded(value);

    u64::from(entries) * element + u64::from(entries.next_power_of_two()) * BUCKET
}

fn rounded(size: u32) -> u64 {
    u64::from(size).next_multiple_of(8)
}

/// What can be taken without swapping.
fn host() -> Option<Available> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;

    Some(Available {
        bytes: kibibytes * 1024,
        whose: "on this host".to_owned(),
    })
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs() {
        // 48 bytes, key, value and bucket.
        assert_eq!(hash(1024, 16, 8), 1024 * (48 + 16 + 8 + 16));
        assert_eq!(hash(1024, 40, 8), 1024 * (48 + 40 + 8 + 16));
        assert_eq!(hash(4096, 37, 4), 4096 * (48 + 40 + 8 + 16));
        assert_eq!(mebibytes(3 << 19), "1.5 MiB");
    }
}
