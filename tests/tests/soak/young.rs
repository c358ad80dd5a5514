//! Queries whose answers are under way while others fill the map. Only the map knows of them: no
//! socket names their peer.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard_common::outcome::{Family, Outcome::DropNoFlow};
use guard_tests::{
    frames::P,
    peers::{Exchange, alive},
    soak::{self, Budget, Tally},
};

use crate::lab::Lab;

const MAX_FLOWS: &str = "1024";
/// Queries that fill the map, half of them over IPv6.
const FILL: u64 = 4_000;
/// Queries under way at a time.
const UNDER_WAY: usize = 40;
const ROUNDS: u16 = 3;
/// Rounds until something must have been forgotten: what a processor has recorded last stays until
/// that very processor records more.
const MANY_ROUNDS: u16 = 15;
const PATIENCE: Duration = Duration::from_millis(100);
/// Where the server is that takes its time; each round has a port of its own.
const SERVER: u16 = 10_000;

/// Lets as many others ask and be answered before each answer comes, in so many rounds or until
/// one is not heard. Returns how many answers there were, how many were heard, and how many frames
/// were dropped.
fn run(rounds: u16, others: u64) -> Result<(usize, usize, u64)> {
    let lab = Lab::new()?;
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let guard = lab.guard(&["--max-flows", MAX_FLOWS])?;
    let tally = Tally::default();
    let (mut asked, mut heard) = (0, 0);
    for round in 0..rounds {
        soak::query(host, &Budget::count(FILL), 2, &tally);
        let server = (P.address(Family::Ipv4), SERVER + round);
        let mut talks = Exchange::open(host, peer, server, false, UNDER_WAY)?;
        soak::query(host, &Budget::count(others), 2, &tally);
        asked += talks.len();
        heard += alive(&mut talks, PATIENCE)?;
        if heard < asked {
            break;
        }
    }
    let dropped = guard.packets()?.of(DropNoFlow);
    println!("young: {heard} of {asked} heard after {others} others, {dropped} dropped");
    Ok((asked, heard, dropped))
}

/// The kernel takes what was never looked up first, and so those that wait for their first answer.
#[test]
fn answers_under_way_outlive_others() -> Result<()> {
    let (asked, heard, dropped) = run(ROUNDS, 400)?;
    ensure!(heard == asked && dropped == 0, "{heard} of {asked}");
    Ok(())
}

#[test]
fn answers_under_way_do_not_outlive_all_others() -> Result<()> {
    let (asked, heard, dropped) = run(MANY_ROUNDS, 6_000)?;
    ensure!(heard < asked && dropped > 0, "nothing is ever forgotten");
    Ok(())
}
