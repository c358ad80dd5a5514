//! Traffic beside what is tested: servers that answer until the test ends, and their clients.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{netns::Namespace, peers::unspecified};

/// Where the web server listens.
const HTTP: u16 = 80;
/// Where the name server listens.
const DNS: u16 = 53;
/// How long a client waits. Shorter than the first retransmission of a SYN, so that one packet
/// that is lost makes a failure.
const PATIENCE: Duration = Duration::from_millis(900);

/// A web server and a name server, over both families.
#[derive(Debug)]
pub struct Servers {
    web: TcpListener,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    /// Serves on a host.
    pub fn start(host: &Namespace) -> Result<Self> {
        let (web, names) = host.run(|| {
            let web = TcpListener::bind((Ipv6Addr::UNSPECIFIED, HTTP))?;
            let names = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, DNS))?;
            io::Result::Ok((web, names))
        })?;
        names.set_read_timeout(Some(Duration::from_millis(20)))?;
        let ended = Arc::new(AtomicBool::new(false));
        let listener = web.try_clone()?;
        let serve_web = move || {
            while let Ok((stream, _)) = listener.accept() {
                // A client that goes away early is its own affair.
                let _ = answer(stream);
            }
        };
        let names_ended = Arc::clone(&ended);
        let serve_names = move || {
            let mut query = [0; 512];
            while !names_ended.load(Ordering::Relaxed) {
                if let Ok((length, client)) = names.recv_from(&mut query) {
                    let _ = names.send_to(&query[..length], client);
                }
            }
        };
        Ok(Self {
            web,
            ended,
            threads: vec![thread::spawn(serve_web), thread::spawn(serve_names)],
        })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // SAFETY: no memory is involved. Anyone who waits for a connection is woken.
        unsafe { libc::shutdown(self.web.as_raw_fd(), libc::SHUT_RDWR) };
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = [0; 512];
    let _ = stream.read(&mut request)?;
    stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")
}

/// Asks the web server, on a connection of its own, from the network of the calling thread.
pub fn get(server: IpAddr) -> Result<()> {
    let address = SocketAddr::new(server, HTTP);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page).context("read the page")?;
    ensure!(page.ends_with("hello"), "a page {page:?}");
    Ok(())
}

/// Asks the name server, from a socket of its own that hears everybody.
pub fn resolve(server: IpAddr) -> Result<()> {
    let socket = UdpSocket::bind((unspecified(server), 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"example.org", (server, DNS))?;
    let mut answer = [0; 512];
    let (length, _) = socket.recv_from(&mut answer).context("no answer")?;
    ensure!(&answer[..length] == b"example.org", "a wrong answer");
    Ok(())
}
