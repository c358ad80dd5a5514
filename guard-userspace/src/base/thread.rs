//! Work on a thread of its own, which ends with the work.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tokio::sync::Notify;

/// Work on a thread of its own. It goes on where this is dropped, until the process ends.
#[derive(Debug)]
pub struct OwnThread<T> {
    thread: JoinHandle<T>,
    ended: Arc<Notify>,
}

impl<T: Send + 'static> OwnThread<T> {
    /// Begins `work`.
    ///
    /// # Errors
    /// When the kernel starts no thread.
    pub fn begin(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let ended = Arc::new(Notify::new());
        let tells = TellsAtTheEnd(Arc::clone(&ended));
        let thread = thread::Builder::new().spawn(move || {
            let _tells = tells;
            work()
        })?;

        Ok(Self { thread, ended })
    }

    /// Returns when the work has ended, and leaves the calling thread to others meanwhile. To be asked
    /// once.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Waits for what the work comes to, and for the end of the thread.
    ///
    /// # Errors
    /// When the work has panicked.
    pub fn join(self) -> thread::Result<T> {
        self.thread.join()
    }
}

/// Tells also where the work panics.
struct TellsAtTheEnd(Arc<Notify>);

impl Drop for TellsAtTheEnd {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_end_of_work_is_waited_for() {
        let (go, wait) = mpsc::channel::<u8>();
        let work = OwnThread::begin(move || wait.recv()).expect("starts");
        go.send(7).expect("waits");
        work.ended().await;
        assert_eq!(work.join().expect("does not panic"), Ok(7));
    }

    #[tokio::test]
    async fn work_that_panics_has_ended() {
        let work = OwnThread::begin(|| panic!("as it is to")).expect("starts");
        work.ended().await;
        assert!(work.join().is_err());
    }
}
