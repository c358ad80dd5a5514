//! Requests and a scan that go on while a test does what it does.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use guard_tests::{
    frames::P,
    guard::Guard,
    load::{self, Servers},
};

use super::{FAMILIES, Lab};

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Requests {
    made: AtomicUsize,
    failed: AtomicUsize,
    leaked: AtomicUsize,
}

/// Makes requests, of a web server and, with `queries`, of a name server, and scans, while `act`
/// does something with the guard.
pub fn beside<'a>(
    lab: &'a Lab,
    guard: &mut Guard<'a>,
    queries: bool,
    act: impl FnOnce(&mut Guard<'a>) -> Result<()>,
) -> Result<Requests> {
    let _servers = Servers::start(&lab.topology.peer)?;
    let (requests, ended) = (Requests::default(), AtomicBool::new(false));
    let request = |family| {
        let server = P.address(family);
        lab.topology.guarded.run(|| {
            while !ended.load(Ordering::Relaxed) {
                let answers = [
                    load::get(server),
                    if queries {
                        load::resolve(server)
                    } else {
                        Ok(())
                    },
                ];
                for answer in answers {
                    requests.made.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = answer {
                        println!("{family:?}: {error:#}");
                        requests.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
    };
    let scan = || {
        while !ended.load(Ordering::Relaxed) {
            let delivered = lab.scan(20).expect("a scan can be sent");
            requests.leaked.fetch_add(delivered, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        scope.spawn(scan);
        for family in FAMILIES {
            scope.spawn(move || request(family));
        }
        let acted = act(guard);
        thread::sleep(Duration::from_millis(200));
        ended.store(true, Ordering::Relaxed);
        acted
    })?;
    println!("{requests:?}");
    Ok(requests)
}

impl Requests {
    /// Checks that every request had its answer.
    pub fn none_failed(&self) -> Result<()> {
        let made = self.made.load(Ordering::Relaxed);
        let failed = self.failed.load(Ordering::Relaxed);
        ensure!(made > 100, "only {made} requests were made");
        ensure!(failed == 0, "{failed} of {made} requests failed");
        Ok(())
    }

    /// Checks that nothing unsolicited was delivered.
    pub fn none_leaked(&self) -> Result<()> {
        let leaked = self.leaked.load(Ordering::Relaxed);
        ensure!(leaked == 0, "{leaked} frames leaked");
        Ok(())
    }
}
