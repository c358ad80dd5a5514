//! The part `scaling`: what many flows cost.

mod fresh;
mod sweep;

use std::{fmt, net::Ipv4Addr, os::fd::AsFd};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    frames::{End, FAR, udp},
    metrics,
    netns::Direct,
    setup::{FIRST, LAST},
    wire::Wire,
};
use serde::Serialize;

pub use self::{fresh::Fresh, sweep::Swept};
use crate::{
    bpf::{self, Mode},
    contender::{Contender, Terms},
    programs::BenchPrograms,
    rig::{self, Attack, Lane, Rig, in_turns},
    rounds::{Ratio, Summary},
    shape::Shape,
};

/// Flows that each map has room for: a power of two above a million.
const MAX_FLOWS: u32 = 1 << 20;
/// How many flows there are, one after the other.
const FLOWS: [u32; 4] = [10, 1_000, 100_000, 1_000_000];
/// How many ports they use: few, or all.
const PORTS: [u32; 2] = [1_000, (LAST - FIRST) as u32 + 1];
/// The remote port.
const SERVICE: u16 = 443;
/// The first remote address: each flow of a port is with another.
const REMOTE: u32 = u32::from_be_bytes([198, 18, 0, 1]);

/// What a spray costs when there are so many flows.
#[derive(Clone, Debug, Serialize)]
pub struct Scaled {
    /// Flows there are.
    pub flows: u32,
    /// Local ports they use, at most.
    pub ports: u32,
    /// Where unsolicited senders aim: at ports in use, or at the whole range.
    pub at_ports_in_use: bool,
    /// Nanoseconds a frame.
    #[serde(flatten)]
    pub cost: Summary,
    /// How fast that is, of a bare XDP_DROP.
    pub of_limit: Ratio,
}

/// What many flows cost.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Scaling {
    /// A flood.
    pub floods: Vec<Scaled>,
    /// Opening flows.
    pub fresh: Vec<Fresh>,
    /// The daemon's sweep, when there are a million.
    pub sweep: Option<Swept>,
}

/// Turns of a flood, for each of others: they are short, and a few percent tell many flows from few.
const SHORT_TURNS: usize = 4;

/// What stands above the lines of floods.
const HEADING: &str = "
spray, by live flows                                     M/s      low   median of limit";

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aim = if self.at_ports_in_use {
            "at those"
        } else {
            "at the range"
        };
        write!(
            f,
            "{:9} flows on {:6} ports, {aim:12} {:14.2} {:8.0} {:8.0} {:8.2}",
            self.flows,
            self.ports,
            1e3 / self.cost.low,
            self.cost.low,
            self.cost.median,
            self.of_limit.value(),
        )
    }
}

/// Measures all of it.
///
/// # Errors
/// When portguard cannot be set up, or loses a flow.
pub fn measure(rounds: usize, mut seen: impl FnMut(&dyn fmt::Display)) -> Result<Scaling> {
    let mut scaling = Scaling::default();
    seen(&HEADING);
    for ports in PORTS {
        let hosts = rig::hosts(3)?;
        let contenders = [Contender::BareDrop, Contender::Portguard];
        let terms = Terms {
            max_flows: MAX_FLOWS,
            ..Terms::default()
        };
        let mut rig = Rig::new(&hosts, &contenders, terms, None, |_, _| {})?;
        let mut sweeps = None;
        let mut present = 0;
        for flows in FLOWS {
            let [_, guarded] = &rig.lanes[..] else {
                unreachable!("there are two lanes")
            };
            open(guarded, &rig.bare, present..flows, ports)?;
            guarded.settle()?;
            present = flows;
            if ports == PORTS[1] && flows == FLOWS[0] {
                sweeps = Some(sweep::Sweeps::watch(guarded)?);
            }
            for scaled in flood(&mut rig, flows, ports, rounds)? {
                seen(&scaled);
                scaling.floods.push(scaled);
            }
        }
        if let Some(sweeps) = sweeps {
            let swept = sweeps.again(&rig.lanes[1])?;
            seen(&swept);
            scaling.sweep = Some(swept);
        }
    }

    seen(&fresh::HEADING);
    scaling.fresh = fresh::measure(rounds)?;
    scaling.fresh.iter().for_each(|line| seen(line));
    Ok(scaling)
}

/// Floods the range, and the ports in use alone.
fn flood(rig: &mut Rig<'_>, flows: u32, ports: u32, rounds: usize) -> Result<Vec<Scaled>> {
    let used = flows.min(ports);
    let everywhere = PORTS[1];
    let mut aims = vec![(false, everywhere)];
    if used < everywhere {
        aims.push((true, used));
    }
    let lanes: Vec<&Lane<'_>> = rig.lanes.iter().collect();
    aims.into_iter()
        .map(|(at_ports_in_use, aimed)| {
            let flood = Attack::Spray.flood(Shape::Ipv4).at(FIRST, aimed);
            let samples = in_turns(&lanes, &mut rig.generator, &flood, SHORT_TURNS * rounds)?;
            Ok(Scaled {
                flows,
                ports,
                at_ports_in_use,
                cost: samples[1].summary(),
                of_limit: samples[1].of_limit(&samples[0]),
            })
        })
        .collect()
}

/// Lets the guarded host send a frame of each flow, by a packet socket: egress sees it as any
/// other. The peer's host is spared them.
fn open(
    lane: &Lane<'_>,
    bare: &BenchPrograms,
    flows: std::ops::Range<u32>,
    ports: u32,
) -> Result<()> {
    let hosts: &Direct = lane.hosts;
    let drop = bare.descriptor("bare_drop")?.as_fd();
    let _dropped = hosts
        .peer
        .run(|| bpf::attach(drop, hosts.peer_interface(), Mode::Native))?;
    let wire = Wire::open(&hosts.guarded, hosts.interface())?;
    for flow in flows.clone() {
        let local = FIRST + (flow % ports) as u16;
        let remote = End {
            ipv4: Ipv4Addr::from(REMOTE + flow / ports),
            ..FAR
        };
        wire.send(&udp(local, SERVICE).to(remote).sent(Family::Ipv4))
            .with_context(|| format!("open flow {flow}"))?;
    }

    let guard = lane.guard().context("flows without a guard")?;
    let known = metrics::sum(
        &guard.scrape()?,
        "portguard_flows",
        &[("family", "ipv4"), ("protocol", "udp")],
    );
    // The LRU may take back a few when it is nearly full.
    let expected = u64::from(flows.end) * 98 / 100;
    ensure!(
        known >= expected,
        "{known} of {} flows are known",
        flows.end
    );
    Ok(())
}
