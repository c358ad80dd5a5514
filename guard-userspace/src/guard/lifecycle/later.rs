//! Programs for interfaces that are missing at the start, loaded while the others are guarded.
//!
//! To load takes a privilege that the daemon has given up by then, and a tenth of a second for each
//! interface. A thread keeps the privilege, and nothing else that the daemon has not, until it is done.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::Context;
use tokio::sync::mpsc as results;

use crate::{
    base::failure::Failure,
    bpf::{pins::Pins, programs::Programs},
    host::privileges,
};

/// A device by its number, and what its copy of the programs is to know.
type Copy = (usize, (u32, bool));

/// The thread that loads, and what comes of it. Once it is dropped the thread pins no map any more; it
/// may be at the verifier for a moment longer.
pub(super) struct Later {
    go: Option<mpsc::Sender<()>>,
    stopped: Arc<Mutex<bool>>,
    loaded: results::UnboundedReceiver<(usize, Result<Programs, Failure>)>,
}

impl Later {
    /// Starts the thread, which waits. Returns its number too.
    ///
    /// # Errors
    /// When there is no thread, or it cannot give up its other privileges.
    pub(super) fn begin(
        copies: Vec<Copy>,
        pins: Pins,
        max_flows: u32,
    ) -> Result<(Self, i32), Failure> {
        let (go, wait) = mpsc::channel();
        let (tell, ready) = mpsc::channel();
        let (result, loaded) = results::unbounded_channel();
        let stopped = Arc::new(Mutex::new(false));
        let is_stopped = Arc::clone(&stopped);
        let work = move || {
            let kept = privileges::keep_to_load();
            let kept = kept.map(|()| nix::unistd::gettid().as_raw());
            if tell.send(kept).is_err() || wait.recv().is_err() {
                return;
            }
            for (number, slot) in copies {
                let begun = {
                    let stopped = is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
                    if *stopped {
                        break;
                    }
                    Programs::begin(slot, &pins, max_flows, true)
                };
                let programs = begun.and_then(load);
                if result.send((number, programs)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new()
            .name("load".to_owned())
            .spawn(work)
            .context("start a thread that loads programs")?;
        let number = ready.recv().context("the thread that loads has ended")??;
        let later = Self {
            go: Some(go),
            stopped,
            loaded,
        };

        Ok((later, number))
    }

    /// Lets it begin.
    pub(super) fn go(&self) {
        if let Some(go) = &self.go {
            // Anyone who does not listen has ended, which shows where its results are waited for.
            let _ = go.send(());
        }
    }

    /// The next copy, or nothing after the last one.
    pub(super) async fn next(&mut self) -> Option<(usize, Result<Programs, Failure>)> {
        self.loaded.recv().await
    }
}

fn load(mut programs: Programs) -> Result<Programs, Failure> {
    programs.load_egress()?;
    programs.close_maps();
    programs.wait()?;

    Ok(programs)
}

impl Drop for Later {
    fn drop(&mut self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}
