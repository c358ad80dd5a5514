//! Servers of a few lines.

use std::{
    collections::BTreeMap,
    io, iter,
    net::{Ipv6Addr, Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// How long a service waits for a client that says nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// A TCP server, over both families, which ends with the test.
#[derive(Debug)]
pub struct Service {
    listener: Arc<TcpListener>,
    /// Those that are still being served, in their order.
    connections: Arc<Mutex<BTreeMap<usize, TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Serves every connection to a port of `host` on a thread of its own.
    pub fn new(
        host: &Namespace,
        port: u16,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = host
            .run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
            .with_context(|| format!("serve TCP port {port}"))?;
        let listener = Arc::new(listener);
        let connections = Arc::<Mutex<BTreeMap<usize, TcpStream>>>::default();
        let (serve, ours, served) = (
            Arc::new(serve),
            Arc::clone(&listener),
            Arc::clone(&connections),
        );
        let thread = thread::spawn(move || {
            let accepted = iter::from_fn(|| ours.accept().ok());
            for (number, (stream, _)) in accepted.enumerate() {
                let (serve, served) = (Arc::clone(&serve), Arc::clone(&served));
                let _ = stream.set_nodelay(true);
                let _ = stream.set_read_timeout(Some(SILENCE));
                if let Ok(stream) = stream.try_clone() {
                    lock(&served).insert(number, stream);
                }
                thread::spawn(move || {
                    // A client may leave whenever it likes.
                    let _ = stream.try_clone().and_then(&*serve);
                    lock(&served).remove(&number);
                    stream.shutdown(Shutdown::Both)
                });
            }
        });
        Ok(Self {
            listener,
            connections,
            thread: Some(thread),
        })
    }

    /// A server that only accepts: what becomes of the connections is up to the test.
    pub fn silent(host: &Namespace, port: u16) -> Result<Self> {
        Self::new(host, port, |stream| {
            // Until the client, or the test, ends it.
            stream.set_read_timeout(None)?;
            stream.peek(&mut [0]).map(drop)
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // SAFETY: no memory is involved; the descriptor is open as long as `self` lives.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in lock(&self.connections).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics with it")
}
