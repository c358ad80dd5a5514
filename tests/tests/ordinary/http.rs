//! N01, N02: the web.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::LazyLock,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::PassKnownFlow;
use guard_tests::{
    clients::{Protocol, Server, Service, moves, run},
    netns::Direct,
    scratch::Scratch,
};

use crate::{MODES, PEERS, guarded, in_url};

/// 50 MB in which no place is like another.
static BIG: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    };
    (0..50_000_000 / 8).flat_map(|_| next()).collect()
});

/// Answers requests on one connection, for as long as the client likes.
fn serve(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            match header.trim_end().split_once(": ") {
                Some(("Content-Length", value)) => length = value.parse().unwrap_or(0),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;

        let (status, page): (&str, &[u8]) = match request.split(' ').next() {
            Some("PUT" | "POST") if body == *BIG => ("201 Created", b"ok"),
            Some("GET") if request.contains("/big ") => ("200 OK", &BIG),
            Some("GET") => ("200 OK", b"small"),
            _ => ("400 Bad Request", b"not what was agreed"),
        };
        let length = page.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
        writer.write_all(head.as_bytes())?;
        writer.write_all(page)?;
    }
}

/// 50 MB down and 50 MB up.
fn exchanges_files(mode: &str, mtu: u32) -> Result<()> {
    let topology = Direct::new()?;
    for (host, interface) in [
        (&topology.guarded, topology.interface()),
        (&topology.peer, topology.peer_interface()),
    ] {
        host.ip(&format!("link set {interface} mtu {mtu}"))?;
    }
    let scratch = Scratch::new()?;
    let (sent, received) = (scratch.write("sent", &*BIG)?, scratch.file("received"));
    let (sent, received) = (sent.display(), received.display());
    let _server = Service::new(&topology.peer, 80, serve)?;
    let guard = guarded(&topology, mode, &[])?;
    for peer in PEERS {
        let url = format!("http://{}", in_url(peer));
        for line in [
            format!("curl -sSf -o {received} {url}/big"),
            format!("curl -sSf -H Expect: -T {sent} {url}/big"),
            format!("curl -sSf -H Expect: --data-binary @{sent} {url}/big"),
        ] {
            moves(&guard, &[PassKnownFlow], &[], || {
                run(&topology.guarded, &line)
            })
            .with_context(|| format!("N01, {mode}, MTU {mtu}, {line}"))?;
        }
        let same = fs::read(scratch.file("received"))? == *BIG;
        ensure!(same, "N01, {mode}, MTU {mtu}, {peer}: another file arrived");
        fs::remove_file(scratch.file("received"))?;
    }
    Ok(())
}

#[test]
fn n01_files_cross_a_native_guard() -> Result<()> {
    exchanges_files("native", 1500)
}

#[test]
fn n01_files_cross_a_native_guard_in_jumbo_frames() -> Result<()> {
    exchanges_files("native", 9000)
}

#[test]
fn n01_files_cross_a_generic_guard() -> Result<()> {
    exchanges_files("generic", 1500)
}

#[test]
fn n02_a_thousand_requests_share_a_connection() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let _server = Service::new(&topology.peer, 80, serve)?;
        let guard = guarded(&topology, mode, &[])?;
        for peer in PEERS {
            let url = format!("http://{}/[1-1000]", in_url(peer));
            let line =
                format!("curl -sSf -o /dev/null -w %{{http_code}}/%{{num_connects}}\\n {url}");
            let answers = moves(&guard, &[PassKnownFlow], &[], || {
                run(&topology.guarded, &line)
            })
            .with_context(|| format!("N02, {mode}, {peer}"))?;
            let count = |wanted| answers.lines().filter(|answer| *answer == wanted).count();
            let counts = (count("200/1"), count("200/0"));
            ensure!(counts == (1, 999), "N02, {mode}, {peer}: {counts:?}");
        }
    }
    Ok(())
}

#[test]
fn n02_pages_arrive_encrypted() -> Result<()> {
    let scratch = Scratch::new()?;
    let (key, certificate) = (scratch.file("key"), scratch.file("certificate"));
    let (key, certificate) = (key.display(), certificate.display());
    for mode in MODES {
        let topology = Direct::new()?;
        run(
            &topology.peer,
            &format!(
                "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -batch \
                 -keyout {key} -out {certificate}"
            ),
        )?;
        let line = format!("openssl s_server -www -accept 443 -key {key} -cert {certificate}");
        let _server =
            Server::start(&topology.peer, &line)?.listening(&topology.peer, Protocol::Tcp, 443)?;
        let guard = guarded(&topology, mode, &[])?;
        for peer in PEERS {
            let line = format!("curl -sSfk https://{}/", in_url(peer));
            let page = moves(&guard, &[PassKnownFlow], &[], || {
                run(&topology.guarded, &line)
            })
            .with_context(|| format!("N02, {mode}, {line}"))?;
            ensure!(page.contains("TLSv1"), "N02, {mode}, {peer}: {page}");
        }
    }
    Ok(())
}
