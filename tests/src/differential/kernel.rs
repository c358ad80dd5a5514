//! The loaded programs, and what they remember, by bare system calls.

mod trie;

use std::{collections::HashMap, mem::offset_of, os::fd::BorrowedFd};

use anyhow::{Context, Result, ensure};
use guard_common::{
    abi::{
        config::Config,
        device::Device,
        layout::{DIVERTED, LOCAL},
        page::{InForce, Page},
        state::State,
    },
    flow::{
        fragment::FragmentKey,
        key::{FlowKeyV4, FlowKeyV6, KernelPortKey},
        state::Flow,
    },
    frame::{ethernet::MacAddress, transport::Transport},
    outcome::{Decision, Tally},
    ports::{
        class::PORTS,
        occupancy::{Occupancy, Use},
    },
};
use guard_reference::policy::{Host, Policy};

use trie::Trie;

use super::{places, session::Session, translate};
use crate::{
    memory::Key,
    programs::{
        Entry, Programs,
        raw::{self, RawMap, Shared},
    },
    setup,
};

/// Entries of each hash map that is emptied in one go.
const ROOM: usize = 4096;

/// The loaded programs of one guard.
pub struct Kernel {
    programs: Programs,
    state: Shared,
    interfaces: Vec<u32>,
    interface: u32,
    flows4: [RawMap<FlowKeyV4, Flow>; 2],
    flows6: [RawMap<FlowKeyV6, Flow>; 2],
    refused: RawMap<FragmentKey, u32>,
    trusted: Trie,
    local: Trie,
    neighbours: Trie,
    devices: RawMap<u32, Device>,
    links: RawMap<MacAddress, u32>,
    kernel_ports: RawMap<KernelPortKey, u32>,
    counters: Vec<u64>,
    page: u32,
}

impl Kernel {
    /// Loads the programs. Must be called on the [`Machine`](super::machine::Machine), and used on
    /// the same thread.
    pub fn new(entry: Entry) -> Result<Self> {
        stay_on_this_processor()?;
        let programs = Programs::load(entry)?;
        let names = (0..places::FORWARDING.len()).map(|index| format!("v{index}"));
        // SAFETY: the maps have these keys and values.
        let (flows4, flows6, refused, trusted, local, neighbours, devices, links, kernel_ports) = unsafe {
            (
                [
                    RawMap::new(programs.map_fd("flows_udp4")?),
                    RawMap::new(programs.map_fd("flows_tcp4")?),
                ],
                [
                    RawMap::new(programs.map_fd("flows_udp6")?),
                    RawMap::new(programs.map_fd("flows_tcp6")?),
                ],
                RawMap::new(programs.map_fd("refused")?),
                RawMap::new(programs.map_fd("trusted")?),
                RawMap::new(programs.map_fd("local")?),
                RawMap::new(programs.map_fd("neighbours")?),
                RawMap::new(programs.map_fd("devices")?),
                RawMap::new(programs.map_fd("link_addresses")?),
                RawMap::new(programs.map_fd("kernel_ports")?),
            )
        };
        Ok(Self {
            state: Shared::map(programs.map_fd("state")?, size_of::<State>())?,
            interfaces: names.map(|name| index_of(&name)).collect::<Result<_>>()?,
            interface: 0,
            flows4,
            flows6,
            refused,
            trusted: Trie::new(trusted, 0),
            local: Trie::new(local, 0),
            neighbours: Trie::new(neighbours, setup::DEVICE),
            devices,
            links,
            kernel_ports,
            counters: vec![0; Decision::SLOTS as usize * programs.processors()],
            page: 0,
            programs,
        })
    }

    /// Makes this the guard with which a session begins.
    pub fn reset(&mut self, session: &Session) -> Result<()> {
        self.drain()?;
        let occupancy = offset_of!(State, occupancy);
        self.state.bytes_mut()[occupancy..].fill(0);
        self.set_epoch(Occupancy::FIRST_EPOCH);
        let host = &session.host;
        let like = places::Forwarding::of(host);
        let interface = places::FORWARDING.iter().position(|one| *one == like);
        let interface = interface.context("no interface sends on like the session's")?;
        self.interface = self.interfaces[interface];
        let device = Device {
            routes_by: [self.interface; 2],
            ..translate::device(host)
        };
        self.devices.set(&setup::DEVICE, &device)?;
        for link in &host.own_links {
            self.links.set(&MacAddress::new(*link), &1)?;
        }
        // No diverted prefix lies in one of the local table.
        let diverted = host.diverted.iter().map(|prefix| (*prefix, DIVERTED));
        let local = host.local_table.iter().map(|prefix| (*prefix, LOCAL));
        self.local
            .hold_values(&diverted.chain(local).collect::<Vec<_>>())?;
        self.neighbours.hold(&host.addresses)?;
        self.configure(&session.policy, host)
    }

    /// Puts another policy in force, at the same epoch.
    pub fn configure(&mut self, policy: &Policy, host: &Host) -> Result<()> {
        self.trusted.hold(&policy.trusted)?;
        self.kernel_ports.drain(ROOM)?;
        for end in &policy.kernel {
            self.kernel_ports.set(&translate::kernel_port(*end), &1)?;
        }
        self.page ^= 1;
        let config = translate::config(policy, host);
        let in_force = config.in_force.with(InForce::SECOND_PAGE, self.page == 1);
        let config = Config {
            in_force,
            recorded: in_force,
            epoch: u32::from(self.epoch()),
            ..config
        };
        let page = offset_of!(State, pages) + self.page as usize * size_of::<Page>();
        self.put(page, &*translate::page(policy, host));
        self.put(offset_of!(State, config), &config);
        Ok(())
    }

    fn put<T: Copy>(&mut self, at: usize, value: &T) {
        let bytes = &mut self.state.bytes_mut()[at..at + size_of::<T>()];
        // SAFETY: there are as many bytes as the value has.
        unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(*value) }
    }

    fn epoch(&self) -> u8 {
        self.state.bytes()[EPOCH]
    }

    /// Puts another epoch in force.
    pub fn set_epoch(&mut self, epoch: u8) {
        self.put(EPOCH, &u32::from(epoch));
    }

    /// The epoch in which a port was last in use.
    pub fn mark(&self, purpose: Use, port: u16) -> u8 {
        self.state.bytes()[mark_at(purpose, port)]
    }

    /// Writes that epoch.
    pub fn set_mark(&mut self, purpose: Use, port: u16, epoch: u8) {
        self.state.bytes_mut()[mark_at(purpose, port)] = epoch;
    }

    /// The epochs in which each port was last in use, one use behind the other.
    pub fn occupancy(&self) -> &[u8] {
        let start = offset_of!(State, occupancy);
        &self.state.bytes()[start..start + Use::COUNT * PORTS]
    }

    /// Checks a received frame: what XDP returned.
    pub fn receive(&self, frame: &[u8]) -> Result<u32> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index.
        let context = [0, frame.len() as u32, 0, self.interface, 0, 0];
        let program = self.programs.program_fd(self.programs.entry().program())?;
        raw::run(program, frame, &context)
    }

    /// Records a sent frame: what the classifier returned.
    pub fn send(&self, frame: &[u8], passes: bool) -> Result<u32> {
        // struct __sk_buff: ingress_ifindex is its tenth word, ifindex the eleventh.
        let mut context = [0; 48];
        context[9] = if passes { self.interfaces[1] } else { 0 };
        context[10] = self.interface;
        raw::run(self.programs.program_fd("egress")?, frame, &context)
    }

    /// The time in ticks.
    pub fn now(&self) -> Result<u32> {
        self.programs.now()
    }

    /// One flow.
    pub fn flow(&self, key: &Key) -> Option<Flow> {
        match key {
            Key::V4(key) => self.flows4[usize::from(is_tcp(key.protocol))].get(key),
            Key::V6(key) => self.flows6[usize::from(is_tcp(key.protocol))].get(key),
        }
    }

    /// Lets these flows and refusals look older by so many ticks, modulo 2^32.
    pub fn age(
        &mut self,
        flows: impl Iterator<Item = Key>,
        refusals: impl Iterator<Item = FragmentKey>,
        ticks: u32,
    ) -> Result<()> {
        let older = |flow: Flow| Flow {
            last_seen: flow.last_seen.wrapping_sub(ticks),
            ..flow
        };
        for key in flows {
            let flow = self
                .flow(&key)
                .with_context(|| format!("{key:?} is gone"))?;
            match key {
                Key::V4(key) => {
                    self.flows4[usize::from(is_tcp(key.protocol))].set(&key, &older(flow))?;
                }
                Key::V6(key) => {
                    self.flows6[usize::from(is_tcp(key.protocol))].set(&key, &older(flow))?;
                }
            }
        }
        for key in refusals {
            let since = self.refused.get(&key).context("a refusal is gone")?;
            self.refused.set(&key, &since.wrapping_sub(ticks))?;
        }
        Ok(())
    }

    /// Takes out all that the programs remember of flows and refusals.
    pub fn drain(&mut self) -> Result<(HashMap<Key, Flow>, HashMap<FragmentKey, u32>)> {
        let mut flows = HashMap::new();
        for (tcp, map) in self.flows4.iter().enumerate() {
            for (key, flow) in map.drain(ROOM)? {
                ensure!(usize::from(is_tcp(key.protocol)) == tcp, "{key:?} is lost");
                flows.insert(Key::V4(key), flow);
            }
        }
        for (tcp, map) in self.flows6.iter().enumerate() {
            for (key, flow) in map.drain(ROOM)? {
                ensure!(usize::from(is_tcp(key.protocol)) == tcp, "{key:?} is lost");
                flows.insert(Key::V6(key), flow);
            }
        }
        let refused = self.refused.drain(ROOM)?.into_iter();
        let refused = refused.filter(|(_, since)| *since != 0).collect();
        Ok((flows, refused))
    }

    /// The counters of the interface, of one processor behind the other.
    pub fn counters(&mut self) -> Result<&[u64]> {
        let map = self.programs.map_fd("counters")?;
        // SAFETY: there are as many counters as processors and slots.
        unsafe { raw::read_everywhere(map, setup::DEVICE, &mut self.counters)? };
        Ok(&self.counters)
    }

    /// What is counted beside the frames.
    pub fn tallies(&self) -> Result<[u64; Tally::COUNT]> {
        let map: BorrowedFd<'_> = self.programs.map_fd("tallies")?;
        let mut tallies = [0; Tally::COUNT];
        for (index, tally) in (0..).zip(&mut tallies) {
            let mut each = vec![0; self.programs.processors()];
            // SAFETY: there are as many words as processors.
            unsafe { raw::read_everywhere(map, index, &mut each)? };
            *tally = each.iter().sum();
        }
        Ok(tallies)
    }
}

const EPOCH: usize = offset_of!(State, config) + offset_of!(Config, epoch);

const fn mark_at(purpose: Use, port: u16) -> usize {
    offset_of!(State, occupancy) + purpose as usize * PORTS + port as usize
}

fn is_tcp(protocol: u32) -> bool {
    protocol == u32::from(Transport::Tcp.number())
}

fn index_of(name: &str) -> Result<u32> {
    let path = format!("{name}\0");
    // SAFETY: the name ends with a zero byte.
    let index = unsafe { libc::if_nametoindex(path.as_ptr().cast()) };
    ensure!(index != 0, "there is no interface {name}");
    Ok(index)
}

/// Counters are a processor's own, and so are the lists that the LRU maps take free entries from.
fn stay_on_this_processor() -> Result<()> {
    // SAFETY: the set is as long as the call is told, and all zero bytes are an empty one.
    let outcome = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().unsigned_abs() as usize, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    ensure!(outcome == 0, "stay on one processor");
    Ok(())
}
