//! Servers for many clients at a time.

use std::{
    io::{self, Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    ops::Range,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{netns::Namespace, sent};

/// Where the web servers listen. Several, because each pair of addresses and server port has no
/// more client ports than the range has.
pub(super) const WEB: Range<u16> = 8000..8008;
/// Where the name server listens.
pub(super) const NAMES: u16 = 53;
/// What a web server says first, as servers of mail and shells do. A client that waits for it sends
/// its request after the server's end of the connection is complete.
///
/// While the last packet of a handshake puts the connection in the place of the request for it, a
/// packet on another processor may find neither, and is answered with a RST by kernels without this cure:
/// <https://git.kernel.org/torvalds/c/1532ed0d0753c83e72595f785f82b48c28bbe5dc>. A request that
/// follows the handshake at once is such a packet, with a guard and without.
pub(super) const GREETING: &[u8] = b"220 peer\r\n";
/// What a web server answers.
pub(super) const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
/// How a client asks to be the one that closes the connection.
pub(super) const KEEP_ALIVE: &str = "keep-alive";

/// Clients that one web server serves at a time.
const AT_A_TIME: usize = 4;
/// How long a server waits for a client that says nothing.
const SILENCE: Duration = Duration::from_secs(15);
/// How often the name server looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// Web servers and a name server, over both families, until it is dropped.
#[derive(Debug)]
pub struct Farm {
    listeners: Vec<Arc<TcpListener>>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Farm {
    /// Serves on a host.
    pub fn start(host: &Namespace) -> Result<Self> {
        let everywhere = Ipv6Addr::UNSPECIFIED;
        let bind = || {
            let web = WEB.map(|port| TcpListener::bind((everywhere, port)).map(Arc::new));
            let names = UdpSocket::bind((everywhere, NAMES))?;
            io::Result::Ok((web.collect::<io::Result<Vec<_>>>()?, names))
        };
        let (listeners, names) = host.run(bind).context("listen on the servers' ports")?;
        names.set_read_timeout(Some(LOOK))?;
        sent::hear_of_losses(&names)?;

        let ended = Arc::new(AtomicBool::new(false));
        let still_wanted = Arc::clone(&ended);
        let mut threads = vec![thread::spawn(move || serve_names(&names, &still_wanted))];
        for listener in &listeners {
            for _ in 0..AT_A_TIME {
                let listener = Arc::clone(listener);
                threads.push(thread::spawn(move || serve_web(&listener)));
            }
        }
        Ok(Self {
            listeners,
            ended,
            threads,
        })
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            // SAFETY: no memory is involved. Anyone who waits for a connection is woken.
            unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_web(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        // A client that goes away early is its own affair.
        let _ = answer(stream);
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(GREETING)?;
    let mut request = [0; 256];
    let length = stream.read(&mut request)?;
    stream.write_all(PAGE)?;
    let keeps = String::from_utf8_lossy(&request[..length]).contains(KEEP_ALIVE);
    if keeps {
        // Until the client has closed its end.
        stream.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

/// Answers each query with itself.
fn serve_names(socket: &UdpSocket, ended: &AtomicBool) {
    let mut query = [0; 512];
    while !ended.load(Ordering::Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut query) {
            // A client that is gone is its own affair.
            let _ = sent::send(socket, &query[..length], client);
        }
    }
}
