//! What happens to the machine meanwhile.

use std::{
    env, fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow},
};
use guard_tests::{
    frames::P,
    load::{self, Servers},
};

use super::Lab;

/// Set where the machine is ours alone: everybody on it misses a processor that goes.
const DISPOSABLE: &str = "PORTGUARD_DISPOSABLE_MACHINE";

const PROCESSOR: &str = "/sys/devices/system/cpu/cpu1/online";

/// A second processor, which is back when the test ends.
struct Processor;

impl Processor {
    fn set(online: bool) -> Result<()> {
        fs::write(PROCESSOR, if online { "1" } else { "0" })
            .with_context(|| format!("write {PROCESSOR}"))
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        if let Err(error) = Self::set(true) {
            eprintln!("{error:#}");
        }
    }
}

/// What a processor has counted stays counted while it is away.
#[test]
fn f13_counters_never_fall_when_a_processor_goes() -> Result<()> {
    if env::var_os(DISPOSABLE).is_none() {
        println!("skipped: a processor goes for everybody here; {DISPOSABLE} is not set");
        return Ok(());
    }
    if !Path::new(PROCESSOR).exists() {
        println!("skipped: this machine has no second processor that can go");
        return Ok(());
    }
    let lab = Lab::new()?;
    let _servers = Servers::start(&lab.topology.peer)?;
    let guard = lab.guard(&[])?;
    let (processor, ended) = (Processor, AtomicBool::new(false));
    let server = P.address(Family::Ipv4);
    let request = || -> Result<u64> {
        let mut requests = 0;
        while !ended.load(Ordering::Relaxed) {
            load::get(server)?;
            load::resolve(server)?;
            requests += 1;
            // One processor alone must not be kept from its other work.
            thread::sleep(Duration::from_millis(5));
        }
        Ok(requests)
    };
    let requests = thread::scope(|scope| {
        let requests = scope.spawn(|| lab.topology.guarded.run(request));
        let toggled = (0..6).try_for_each(|round| -> Result<()> {
            let before = guard.packets()?;
            Processor::set(round % 2 != 0)?;
            ensure!(lab.scan(5)? == 0, "unsolicited packets are delivered");
            // Fails when one has fallen.
            let moved = guard.packets()?.since(&before);
            ensure!(moved.of(DropNoFlow) == 10, "round {round}:{moved}");
            ensure!(moved.of(PassKnownFlow) > 0, "round {round}:{moved}");
            thread::sleep(Duration::from_millis(50));
            Ok(())
        });
        ended.store(true, Ordering::Relaxed);
        let requests = requests.join().expect("requests do not panic");
        toggled.and(requests)
    })?;
    drop(processor);
    println!("{requests} requests, none failed");
    Ok(())
}
