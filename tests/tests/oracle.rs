//! Whatever the kernel delivers where nobody guards reaches whom has asked for it, and nobody
//! else, however it is encoded.

use anyhow::{Context, Result, ensure};
use guard_tests::{
    kernel,
    oracle::{
        campaign,
        policy::EXCEPTIONS,
        tally::{Plan, Tally},
    },
};

/// Encodings for each way of attaching.
const ENCODINGS: u32 = 10_000;

fn plan(mode: &'static str) -> Plan {
    Plan {
        seed: mode.len() as u64,
        encodings: ENCODINGS,
        mode: Some(mode),
        asks: true,
    }
}

#[test]
fn native_xdp_does_as_the_kernel_for_peers_and_nothing_for_unsolicited_senders() -> Result<()> {
    check("native")
}

#[test]
fn generic_xdp_does_as_the_kernel_for_peers_and_nothing_for_unsolicited_senders() -> Result<()> {
    check("generic")
}

fn check(mode: &'static str) -> Result<()> {
    let complaints = kernel::complaints();
    let tally = campaign::run(&plan(mode), |_| {})?;
    println!("{tally}");
    telling(&tally)?;
    ensure!(
        complaints == kernel::complaints(),
        "the kernel has complained"
    );
    Ok(())
}

/// What the kernel never delivers says nothing about a guard.
fn telling(tally: &Tally) -> Result<()> {
    let [unsolicited, peers] = tally.deliverable();
    ensure!(
        unsolicited > tally.encodings / 5 && peers > tally.encodings / 5,
        "too little would be delivered: {tally}"
    );
    for (feature, [unsolicited, peers]) in &tally.delivered {
        // No peer is asked by the address of everybody.
        let peers_too = *feature != "group";
        ensure!(
            *unsolicited > 0 && (*peers > 0 || !peers_too),
            "{feature} was never delivered: {tally}"
        );
    }
    for exception in &EXCEPTIONS {
        ensure!(
            tally.excepted.contains_key(exception.name),
            "{} explains nothing: {}",
            exception.name,
            exception.reason
        );
    }
    // A loaded machine may lose a frame; a guard that does loses it again.
    ensure!(
        tally.unsteady <= tally.encodings / 500,
        "differences that come and go: {tally}"
    );
    Ok(())
}

#[test]
fn without_a_guard_unsolicited_senders_are_delivered() -> Result<()> {
    let plan = Plan {
        encodings: 256,
        mode: None,
        ..plan("native")
    };
    let error = campaign::run(&plan, |_| {}).err().context("nothing came")?;
    ensure!(
        format!("{error:#}").contains("unsolicited sender"),
        "{error:#}"
    );
    Ok(())
}

#[test]
fn peers_that_nobody_has_asked_are_not_delivered() -> Result<()> {
    let plan = Plan {
        encodings: 256,
        asks: false,
        ..plan("native")
    };
    let error = campaign::run(&plan, |_| {}).err().context("all came")?;
    ensure!(format!("{error:#}").contains("peer's"), "{error:#}");
    Ok(())
}
