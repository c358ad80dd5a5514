//! What a driver says about an interface, over the ioctls of ethtool.

use std::{ffi::CStr, io};

use super::ioctl;

/// `SIOCETHTOOL`, include/uapi/linux/sockios.h.
const SIOCETHTOOL: libc::Ioctl = 0x8946;
/// `ETHTOOL_GDRVINFO`, include/uapi/linux/ethtool.h.
const GET_DRIVER: u32 = 3;
/// `ETHTOOL_GSTRINGS`.
const GET_STRINGS: u32 = 0x1b;
/// `ETHTOOL_GSSET_INFO`.
const COUNT_STRINGS: u32 = 0x37;
/// `ETHTOOL_GFEATURES`.
const GET_FEATURES: u32 = 0x3a;
/// `ETHTOOL_GCHANNELS`.
const GET_CHANNELS: u32 = 0x3c;
/// `ETH_SS_FEATURES`: the names of features.
const FEATURE_NAMES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME_BYTES: usize = 32;

/// How many queues an interface has, and could have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Channels {
    /// Those that only receive.
    pub receive: u32,
    /// Those that only send.
    pub transmit: u32,
    /// Those that do both.
    pub combined: u32,
    /// The most that could only send.
    pub max_transmit: u32,
    /// The most that could do both.
    pub max_combined: u32,
}

/// The name of the driver behind the interface called `interface`.
pub fn name(interface: &str) -> Option<String> {
    text(&driver(interface)?.name)
}

/// Where the hardware behind the interface called `interface` is on its bus, such as
/// `0000:00:03.0`.
pub fn bus(interface: &str) -> Option<String> {
    text(&driver(interface)?.bus)
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct Driver {
    command: u32,
    name: [u8; 32],
    versions: [u8; 64],
    bus: [u8; 32],
    rest: [u8; 64],
}

fn driver(interface: &str) -> Option<Driver> {
    let mut driver = Driver {
        command: GET_DRIVER,
        name: [0; 32],
        versions: [0; 64],
        bus: [0; 32],
        rest: [0; 64],
    };
    ask(interface, &mut driver).ok()?;

    Some(driver)
}

fn text(bytes: &[u8]) -> Option<String> {
    let text = CStr::from_bytes_until_nul(bytes).ok()?.to_str().ok()?;

    (!text.is_empty()).then(|| text.to_owned())
}

/// The queues of the interface called `interface`.
pub fn channels(interface: &str) -> Option<Channels> {
    /// `struct ethtool_channels`.
    #[repr(C)]
    #[derive(Default)]
    struct Answer {
        command: u32,
        max_receive: u32,
        max_transmit: u32,
        max_other: u32,
        max_combined: u32,
        receive: u32,
        transmit: u32,
        other: u32,
        combined: u32,
    }

    let mut answer = Answer {
        command: GET_CHANNELS,
        ..Answer::default()
    };
    ask(interface, &mut answer).ok()?;

    Some(Channels {
        receive: answer.receive,
        transmit: answer.transmit,
        combined: answer.combined,
        max_transmit: answer.max_transmit,
        max_combined: answer.max_combined,
    })
}

/// A feature of an interface that is on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ActiveFeature {
    /// Its name, such as `rx-lro`.
    pub name: String,
    /// Whether it cannot be turned off: `ethtool -k` shows it as fixed.
    pub fixed: bool,
}

/// The features that are on at the interface called `interface`.
pub fn features(interface: &str) -> Vec<ActiveFeature> {
    read_features(interface).unwrap_or_default()
}

fn read_features(interface: &str) -> Option<Vec<ActiveFeature>> {
    #[repr(C)]
    struct Count {
        command: u32,
        reserved: u32,
        sets: u64,
        count: [u32; 1],
    }

    let mut count = Count {
        command: COUNT_STRINGS,
        reserved: 0,
        sets: 1 << FEATURE_NAMES,
        count: [0],
    };
    ask(interface, &mut count).ok()?;
    let count = count.count[0] as usize;

    // The kernel fills as many names as it is told there is room for.
    let mut names = vec![0; 3 + count * NAME_BYTES / size_of::<u32>()];
    names[..3].copy_from_slice(&[GET_STRINGS, FEATURE_NAMES, count as u32]);
    ask_words(interface, &mut names).ok()?;
    // Four words for each 32 features: available, requested, active and never changed.
    const AVAILABLE: usize = 0;
    const ACTIVE: usize = 2;
    let blocks = count.div_ceil(32);
    let mut bits = vec![0; 2 + blocks * 4];
    bits[..2].copy_from_slice(&[GET_FEATURES, blocks as u32]);
    ask_words(interface, &mut bits).ok()?;

    let names: Vec<u8> = names[3..]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let has = |word: usize, number: usize| {
        bits.get(2 + number / 32 * 4 + word)
            .is_some_and(|word| word >> (number % 32) & 1 != 0)
    };

    Some(
        names
            .chunks(NAME_BYTES)
            .enumerate()
            .filter(|(number, _)| has(ACTIVE, *number))
            .filter_map(|(number, name)| {
                Some(ActiveFeature {
                    name: CStr::from_bytes_until_nul(name)
                        .ok()?
                        .to_str()
                        .ok()?
                        .to_owned(),
                    fixed: !has(AVAILABLE, number),
                })
            })
            .collect(),
    )
}

fn ask<T>(interface: &str, request: &mut T) -> io::Result<()> {
    // SAFETY: each structure that is asked with is the one of its command.
    unsafe { ask_raw(interface, std::ptr::from_mut(request).cast()) }
}

fn ask_words(interface: &str, request: &mut [u32]) -> io::Result<()> {
    // SAFETY: the first words say how much room there is, and the callers have made it.
    unsafe { ask_raw(interface, request.as_mut_ptr().cast()) }
}

/// # Safety
///
/// `request` must point to the structure that belongs to the command which starts it, with as much
/// room behind it as it says.
unsafe fn ask_raw(interface: &str, request: *mut libc::c_char) -> io::Result<()> {
    let argument = libc::__c_anonymous_ifr_ifru { ifru_data: request };
    // SAFETY: the kernel reads the command that starts `request`, and writes no more than the
    // structure that belongs to it, which the caller vouches for.
    unsafe { ioctl::ask(interface, SIOCETHTOOL, argument) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_interface_says_nothing_and_loopback_has_features() {
        assert_eq!(name("no-such-if"), None);
        assert_eq!(channels("no-such-if"), None);
        assert!(features("no-such-if").is_empty());
        let features = features("lo");
        let find = |name| features.iter().find(|feature| feature.name == name);
        // NETIF_F_LOOPBACK is none of its `hw_features`, and scatter-gather is: gen_lo_setup,
        // drivers/net/loopback.c.
        assert!(
            find("loopback").is_some_and(|feature| feature.fixed),
            "{features:?}"
        );
        assert!(
            find("tx-tcp-segmentation").is_some_and(|feature| !feature.fixed),
            "{features:?}"
        );
        assert_eq!(find("rx-lro"), None, "{features:?}");
    }
}
