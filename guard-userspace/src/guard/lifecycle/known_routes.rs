//! What is known of the routes. A router of the whole internet has a million of them, which take a
//! second to read: then they are read aside, and seldom.

use std::{
    sync::mpsc::{self, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::host::interfaces::Routes;

/// How long the first reading may keep the start, and each later one the event loop.
const AT_ONCE: Duration = Duration::from_millis(40);

/// Between two readings that took longer than that there is a pause of so many times what the last
/// one took: less than 2 % of a processor.
const PAUSE: u32 = 64;

/// How often they are read at least, where changes may have been missed.
const AT_LEAST: Duration = Duration::from_secs(60);

/// What a reading takes, and what comes of it.
type Reading = (Duration, anyhow::Result<Routes>);

/// The routes as last read.
#[derive(Default)]
pub(super) struct KnownRoutes {
    known: Routes,
    /// When they were read last, and how long that took, where it was too long to wait for.
    slow: Option<(Instant, Duration)>,
    /// A reading that is under way.
    reading: Option<mpsc::Receiver<Reading>>,
    /// Whether something has changed since the last reading began.
    changed: bool,
}

impl KnownRoutes {
    /// Reads the routes of a namespace that nothing is known about, as far as there is time: then
    /// those to this host alone.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub(super) fn start(&mut self) -> anyhow::Result<&Routes> {
        let began = Instant::now();
        match Routes::read(Some(began + AT_ONCE))? {
            Some(routes) => self.known = routes,
            None => {
                self.known = Routes::read_local()?;
                // The rest comes later: a thread that begins now would keep privileges.
                self.slow = Some((Instant::now(), AT_ONCE));
                self.changed = true;
            }
        }

        Ok(&self.known)
    }

    /// The routes: as they are where there are few, else as they were when they were read last.
    /// Another reading begins where it is time for one, not on this thread. `changed` says whether
    /// any has changed.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub(super) fn look(&mut self, changed: bool) -> anyhow::Result<&Routes> {
        self.changed |= changed;
        self.finish()?;
        let Some((read, took)) = self.slow else {
            let began = Instant::now();
            match Routes::read(Some(began + AT_ONCE))? {
                Some(routes) => self.known = routes,
                None => self.slow = Some((began, Duration::ZERO)),
            }
            return Ok(&self.known);
        };
        let rested = read.elapsed();
        let due = self.changed || rested >= AT_LEAST;
        if self.reading.is_none() && due && rested >= took * PAUSE {
            self.begin()?;
        }

        Ok(&self.known)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        let (tell, reading) = mpsc::channel();
        let work = move || {
            let began = Instant::now();
            let routes = Routes::read(None).map(Option::unwrap_or_default);
            // Nobody waits for it where the guard has ended.
            let _ = tell.send((began.elapsed(), routes));
        };
        thread::Builder::new()
            .name("routes".to_owned())
            .spawn(work)
            .context("start a thread that reads routes")?;
        self.reading = Some(reading);
        self.changed = false;

        Ok(())
    }

    /// Takes what a reading that was under way has found.
    fn finish(&mut self) -> anyhow::Result<()> {
        let Some(reading) = &self.reading else {
            return Ok(());
        };
        let (took, routes) = match reading.try_recv() {
            Ok(done) => done,
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => (
                AT_ONCE,
                Err(anyhow::anyhow!("reading the routes has panicked")),
            ),
        };
        self.reading = None;
        // There may be few again.
        self.slow = (took > AT_ONCE / 4).then(|| (Instant::now(), took));
        match routes {
            Ok(routes) => self.known = routes,
            Err(error) => {
                self.slow = Some((Instant::now(), took));
                self.changed = true;
                return Err(error);
            }
        }

        Ok(())
    }
}
