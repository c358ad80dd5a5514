//! The ports that the kernel hands out, as sets and as text.

use std::{fmt, str::FromStr};

use anyhow::{Context, ensure};

use crate::host::range::{LocalPorts, PortBitmap, PortRange, parse_reserved};

/// Ports and ranges with commas between, as in `8080,9000-9010`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortList(pub Vec<PortRange>);

impl FromStr for PortList {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let ports = parse_reserved(text)
            .with_context(|| format!("{text:?} is no list of ports; write 8080,9000-9010"))?;
        ensure!(!ports.is_empty(), "no port is named; write 8080,9000-9010");

        Ok(Self(ports))
    }
}

/// Such as `32768-60999 (reserved: 40000)`.
pub struct PortUse<'a>(pub &'a LocalPorts);

impl fmt::Display for PortUse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.range)?;
        if !self.0.reserved.is_empty() {
            write!(f, " (reserved: {})", list(&self.0.reserved))?;
        }

        Ok(())
    }
}

/// The ports that the kernel hands out, which are those that a guard without exposed ports guards.
pub fn handed_out(local: &LocalPorts) -> PortBitmap {
    let mut ports = PortBitmap::default();
    ports.insert(local.range);
    for &reserved in &local.reserved {
        ports.remove(reserved);
    }

    ports
}

/// The ranges that a set of ports is made of, in order.
pub fn runs(ports: &PortBitmap) -> Vec<PortRange> {
    let mut runs = Vec::new();
    let mut first = None;
    for port in 1..=u16::MAX {
        first = match (first, ports.contains(port)) {
            (None, true) => Some(port),
            (Some(first), false) => {
                runs.extend(PortRange::new(first, port - 1));
                None
            }
            (first, _) => first,
        };
    }
    if let Some(first) = first {
        runs.extend(PortRange::new(first, u16::MAX));
    }

    runs
}

/// Ports and ranges with commas between, as the kernel takes them.
pub fn list(ports: &[PortRange]) -> String {
    let ports: Vec<_> = ports
        .iter()
        .map(|ports| match (ports.first(), ports.last()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
        .collect();

    ports.join(",")
}

/// A range as the kernel takes it.
pub fn written(range: PortRange) -> String {
    format!("{} {}", range.first(), range.last())
}
