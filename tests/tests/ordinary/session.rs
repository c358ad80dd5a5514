//! N08, N09: conversations in which the server speaks when it likes.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Outcome::{self, DropNoFlow, PassKnownFlow, PassOutsideRange, PassRescued},
    Verdict,
};
use guard_tests::{
    clients::{Protocol, Server, Service, Ssh, moves, run},
    guard::Guard,
    netns::{Direct, Namespace},
    scratch::Scratch,
};

use crate::{MODES, PEERS, guarded, in_url};

/// How long an idle connection is remembered, in these tests.
const REMEMBERED: [&str; 2] = ["--timeout", "tcp-established=8"];
/// Less, also where a busy machine takes its time.
const SHORT: u32 = 5;
/// More.
const LONG: u32 = 10;

/// Idles in sessions of both families at once, and says which of them heard the server then.
fn idle(topology: &Direct, ssh: &Ssh, seconds: u32, patience: u32) -> Result<Vec<bool>> {
    let command = format!("sleep {seconds}; echo late");
    let sessions = PEERS.map(|peer| {
        let client = ssh.client(&topology.guarded, peer, 22, &command);
        let mut limited = Command::new("timeout");
        limited.arg((seconds + patience).to_string());
        limited.arg(client.get_program()).args(client.get_args());
        limited.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()
    });
    let outputs = sessions.map(|session| session.and_then(|child| child.wait_with_output()));
    outputs
        .into_iter()
        .map(|output| Ok(output?.stdout == b"late\n"))
        .collect()
}

fn n08_idles(mode: &str, flags: &[&str], seconds: u32, due: Outcome) -> Result<()> {
    let ssh = Ssh::new()?;
    let topology = Direct::new()?;
    let _server = ssh.serve(&topology.peer, 22)?;
    let flags = [&REMEMBERED, flags].concat();
    let guard = if due == PassRescued {
        // Else a sweep in between may leave the rescue nothing to do.
        let flags = [&["--xdp-mode", mode], &flags[..]].concat();
        let alterations = ["--without", "repair"];
        Guard::start_altered(
            &topology.guarded,
            topology.interface(),
            &alterations,
            &flags,
        )?
    } else {
        guarded(&topology, mode, &flags)?
    };
    let row = || format!("N08, {mode}, {flags:?}, {seconds} s");
    let survives = due.verdict() == Verdict::Pass;
    // Opening a session takes a busy machine its time; who hears nothing need not wait for ever.
    let patience = if survives { 15 } else { 8 };
    let heard = moves(&guard, &[PassKnownFlow, due], &[], || {
        idle(&topology, &ssh, seconds, patience)
    })
    .with_context(row)?;
    ensure!(heard == [survives; 2], "{}: {heard:?}", row());
    Ok(())
}

#[test]
fn n08_a_session_that_idles_hears_its_server() -> Result<()> {
    // They mostly wait, and can do so together. Past the timer only the rescue saves a session.
    let rows: [(&str, &[&str], u32, Outcome); 5] = [
        ("native", &["--no-rescue"], SHORT, PassKnownFlow),
        ("generic", &["--no-rescue"], SHORT, PassKnownFlow),
        ("native", &[], LONG, PassRescued),
        ("generic", &[], LONG, PassRescued),
        ("native", &["--no-rescue"], LONG, DropNoFlow),
    ];
    thread::scope(|scope| {
        let rows = rows.map(|(mode, flags, seconds, due)| {
            scope.spawn(move || n08_idles(mode, flags, seconds, due))
        });
        let results = rows.map(|row| row.join().expect("a row does not panic"));
        results.into_iter().collect()
    })
}

/// Answers one client of a file server that is never the one to connect.
fn serve_files(control: TcpStream, data: &TcpListener, file: &[u8]) -> io::Result<()> {
    let port = data.local_addr()?.port();
    let mut lines = BufReader::new(control.try_clone()?);
    let mut control = control;
    control.write_all(b"220 ready\r\n")?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match line.split_whitespace().next().unwrap_or_default() {
            "USER" => "331 and your password".to_owned(),
            "PASS" => "230 welcome".to_owned(),
            "PWD" => "257 \"/\"".to_owned(),
            "TYPE" => "200 so be it".to_owned(),
            "SIZE" => format!("213 {}", file.len()),
            "EPSV" => format!("229 come to (|||{port}|)"),
            "PASV" => format!("227 come to (10,9,0,1,{},{})", port / 256, port % 256),
            "RETR" => {
                control.write_all(b"150 here it comes\r\n")?;
                data.accept()?.0.write_all(file)?;
                "226 sent".to_owned()
            }
            "STOR" => {
                control.write_all(b"150 go on\r\n")?;
                let mut received = Vec::new();
                data.accept()?.0.read_to_end(&mut received)?;
                let same = received == file;
                (if same {
                    "226 received"
                } else {
                    "550 another file"
                })
                .to_owned()
            }
            "QUIT" => return control.write_all(b"221 bye\r\n"),
            _ => "502 not here".to_owned(),
        };
        control.write_all(format!("{answer}\r\n").as_bytes())?;
    }
}

fn file_server(host: &Namespace, file: &[u8]) -> Result<Service> {
    let data = host.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
    let (data, file) = (Arc::new(data), file.to_vec());
    Service::new(host, 21, move |control| serve_files(control, &data, &file))
}

#[test]
fn n09_files_are_fetched_and_stored_passively() -> Result<()> {
    let file: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_ne_bytes).collect();
    let scratch = Scratch::new()?;
    let (sent, received) = (scratch.write("sent", &file)?, scratch.file("received"));
    let (sent, got) = (sent.display(), received.display());
    for mode in MODES {
        let topology = Direct::new()?;
        let _server = file_server(&topology.peer, &file)?;
        let guard = guarded(&topology, mode, &[])?;
        for peer in PEERS {
            let url = format!("ftp://{}/file", in_url(peer));
            let how = if peer.is_ipv4() { "--disable-epsv" } else { "" };
            for line in [
                format!("curl -sSf --ftp-pasv {how} -o {got} {url}"),
                format!("curl -sSf --ftp-pasv -o {got} {url}"),
                format!("curl -sSf --ftp-pasv {how} -T {sent} {url}"),
            ] {
                moves(&guard, &[PassKnownFlow], &[], || {
                    run(&topology.guarded, &line)
                })
                .with_context(|| format!("N09, {mode}, {line}"))?;
            }
            ensure!(fs::read(&received)? == file, "N09, {mode}: another file");
            fs::remove_file(&received)?;
        }
    }
    Ok(())
}

#[test]
fn n09_lines_and_datagrams_are_answered() -> Result<()> {
    let scratch = Scratch::new()?;
    let said = scratch.write("said", "EHLO g\nMAIL FROM:<a@g>\nQUIT\n")?;
    for mode in MODES {
        let topology = Direct::new()?;
        let (guest, host) = (&topology.guarded, &topology.peer);
        let chat = "socat TCP6-LISTEN:25,fork,reuseaddr,ipv6only=0 EXEC:cat";
        let _chat = Server::start(host, chat)?.listening(host, Protocol::Tcp, 25)?;
        let time = "socat UDP6-RECVFROM:123,fork,ipv6only=0 EXEC:cat";
        let _time = Server::start(host, time)?.listening(host, Protocol::Udp, 123)?;
        let guard = guarded(&topology, mode, &[])?;
        for peer in PEERS {
            let peer = in_url(peer);
            for (end, due) in [
                (format!("TCP:{peer}:25"), PassKnownFlow),
                (format!("UDP:{peer}:123"), PassKnownFlow),
                // As a time server asks another.
                (format!("UDP:{peer}:123,sourceport=123"), PassOutsideRange),
            ] {
                let output = moves(&guard, &[due], &[], || {
                    let mut client = guest.command("socat");
                    client.args(["-t", "0.5", "-", &end]);
                    Ok(client.stdin(File::open(&said)?).output()?)
                })
                .with_context(|| format!("N09, {mode}, {end}"))?;
                let echoed = output.stdout == fs::read(&said)?;
                ensure!(echoed, "N09, {mode}, {end}: {output:?}");
            }
        }
    }
    Ok(())
}
