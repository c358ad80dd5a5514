//! What the loaded guard remembers, and making it look older.

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, MapData};
use guard_common::{
    flow::{
        fragment::{FragmentKey, RefusedAt},
        key::{FlowKeyV4, FlowKeyV6},
        state::Flow,
    },
    frame::transport::Transport,
    outcome::Decision,
};

use super::{Programs, element, state};
use crate::{
    memory::{Aged, Contents, Key},
    setup,
};

/// The flow maps of IPv4, and whether they hold TCP.
const V4_FLOWS: [(&str, bool); 2] = [("flows_tcp4", true), ("flows_udp4", false)];
/// The flow maps of IPv6, likewise.
const V6_FLOWS: [(&str, bool); 2] = [("flows_tcp6", true), ("flows_udp6", false)];

fn belongs(protocol: u32, tcp: bool) -> bool {
    (protocol == u32::from(Transport::Tcp.number())) == tcp
}

impl Programs {
    /// Lets flows and refusals look `ticks` older than they are, modulo 2^32: younger, where that
    /// wraps around.
    ///
    /// The kernel's clock cannot be set, and real timers take hours; moving what it is compared
    /// with is the same to every comparison.
    pub fn age(&mut self, ticks: u32) -> Result<()> {
        if ticks == 0 {
            return Ok(());
        }
        let older = |flow: Flow| Flow {
            last_seen: flow.last_seen.wrapping_sub(ticks),
            ..flow
        };
        for (name, _) in V4_FLOWS {
            replace::<FlowKeyV4, Flow>(&mut self.hash(name)?, older)?;
        }
        for (name, _) in V6_FLOWS {
            replace::<FlowKeyV6, Flow>(&mut self.hash(name)?, older)?;
        }
        replace::<FragmentKey, u32>(&mut self.hash("refused")?, |mark| {
            if mark == 0 {
                0
            } else {
                mark.wrapping_sub(ticks)
            }
        })
    }

    /// Every flow, as it looks at `now`. One that is in the wrong map is an error.
    pub fn flows(&mut self, now: u32) -> Result<Contents<Aged>> {
        let mut flows = Contents::new();
        for (name, tcp) in V4_FLOWS {
            for entry in self.hash::<FlowKeyV4, Flow>(name)?.iter() {
                let (key, flow) = entry?;
                ensure!(belongs(key.protocol, tcp), "{key:?} is in {name}");
                flows.insert(format!("{:?}", Key::V4(key)), Aged::new(flow, now));
            }
        }
        for (name, tcp) in V6_FLOWS {
            for entry in self.hash::<FlowKeyV6, Flow>(name)?.iter() {
                let (key, flow) = entry?;
                ensure!(belongs(key.protocol, tcp), "{key:?} is in {name}");
                flows.insert(format!("{:?}", Key::V6(key)), Aged::new(flow, now));
            }
        }
        Ok(flows)
    }

    /// For every datagram that was ever refused, whether its later fragments are refused at `now`.
    pub fn refusals(&mut self, now: u32) -> Result<Contents<bool>> {
        self.hash::<FragmentKey, u32>("refused")?
            .iter()
            .map(|entry| {
                let (key, mark) = entry?;
                let holds = RefusedAt::new(mark).holds(now, setup::TIMEOUTS.fragment);
                Ok((format!("{key:?}"), holds))
            })
            .collect()
    }

    /// The epochs in which each port was last in use, one use behind the other.
    pub fn occupancy(&self) -> Result<Vec<u8>> {
        Ok(state::occupancy(self.state()?.bytes()).to_vec())
    }

    /// The counters of one interface, of all processors together.
    pub fn counters(&self, device: u32) -> Result<Vec<u64>> {
        const SLOTS: usize = Decision::SLOTS as usize;

        let mut bytes = vec![0; self.processors * SLOTS * 8];
        element::read(self.map_fd("counters")?, device, &mut bytes)?;
        let mut sums = vec![0; SLOTS];
        for (index, counter) in bytes.chunks_exact(8).enumerate() {
            sums[index % SLOTS] += u64::from_ne_bytes(counter.try_into()?);
        }
        Ok(sums)
    }

    /// Forgets every flow and every refusal.
    pub fn forget(&mut self) -> Result<()> {
        for (name, _) in V4_FLOWS {
            clear::<FlowKeyV4, Flow>(&mut self.hash(name)?)?;
        }
        for (name, _) in V6_FLOWS {
            clear::<FlowKeyV6, Flow>(&mut self.hash(name)?)?;
        }
        clear::<FragmentKey, u32>(&mut self.hash("refused")?)
    }

    fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
    ) -> Result<HashMap<&mut MapData, K, V>> {
        let map = self.map_mut(name)?;
        map.try_into().with_context(|| name.to_owned())
    }
}

fn entries<K: aya::Pod, V: aya::Pod>(map: &HashMap<&mut MapData, K, V>) -> Result<Vec<(K, V)>> {
    map.iter().map(|entry| Ok(entry?)).collect()
}

fn clear<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<&mut MapData, K, V>) -> Result<()> {
    for (key, _) in entries(map)? {
        map.remove(&key)?;
    }
    Ok(())
}

fn replace<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<&mut MapData, K, V>,
    change: impl Fn(V) -> V,
) -> Result<()> {
    for (key, value) in entries(map)? {
        map.insert(key, change(value), 0)?;
    }
    Ok(())
}
