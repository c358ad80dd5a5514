mod file;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use nix::sys::stat::{Mode, umask};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime,
    sync::oneshot,
};

use super::*;
use crate::{
    api::http::test_guard::{Fake, flow, observation},
    base::failure::{Exit, Failure},
    config,
};

/// A daemon's control socket, served by a thread of its own.
pub(crate) struct Server {
    pub(crate) socket: PathBuf,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
    _folder: TempDir,
}

impl Server {
    pub(crate) fn start(fake: Fake) -> Self {
        let folder = TempDir::new().expect("a folder");
        let socket = folder.path().join("portguard/control.sock");
        let (stop, stopped) = oneshot::channel();
        let bound = Arc::new(Barrier::new(2));
        let thread = thread::spawn({
            let (socket, bound) = (socket.clone(), Arc::clone(&bound));
            move || {
                runtime().block_on(async {
                    let socket = ControlSocket::bind(&socket).await.expect("binds");
                    bound.wait();
                    let (_, shared) = fake.shared();
                    let (asked, mut actions) = mpsc::channel(1);
                    tokio::spawn(async move {
                        while let Some(ActionRequest { peer, answer, .. }) = actions.recv().await {
                            let uid =
                                format!("uid {}, pid {}", nix::unistd::getuid(), process::id());
                            assert_eq!(peer.to_string(), uid);
                            let failure = Failure::bad_configuration("f:1:1: no").remedy("mend it");
                            let _ = answer.send(Reply::from(Err(failure)));
                        }
                    });
                    run(socket, shared, asked, async {
                        let _ = stopped.await;
                    })
                    .await;
                });
            }
        });
        bound.wait();

        Self {
            socket,
            stop,
            thread,
            _folder: folder,
        }
    }

    fn text(&self, question: Question) -> String {
        let mut text = Vec::new();
        Client::new(&self.socket)
            .copy(question, &mut text)
            .expect("answers");
        String::from_utf8(text).expect("text")
    }

    fn json(&self, question: Question) -> Value {
        serde_json::from_str(&self.text(question)).expect("JSON")
    }
}

fn runtime() -> runtime::Runtime {
    runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn bind(path: &Path) -> Result<ControlSocket, Failure> {
    runtime().block_on(ControlSocket::bind(path))
}

#[test]
fn a_change_is_asked_for_and_its_outcome_told() {
    let server = Server::start(Fake::default());
    let failure = Client::new(&server.socket)
        .act(&Action::Reload)
        .expect_err("refused");
    assert_eq!(failure.code, Exit::BadConfiguration);
    assert_eq!(failure.to_string(), "f:1:1: no; mend it");
}

#[test]
fn status_as_json() {
    let server = Server::start(Fake::default());
    let mut packets: serde_json::Map<String, Value> = [
        "not_ip",
        "vlan_depth",
        "header_depth",
        "malformed",
        "later_fragment",
        "fragment_denied",
        "icmp_info",
        "icmp_outside",
        "icmp_related",
        "icmp_unrelated",
        "other_protocol",
        "outside_range",
        "exempt",
        "rescued",
        "not_local",
    ]
    .map(|reason| (reason.to_owned(), json!(0)))
    .into_iter()
    .collect();
    packets.insert("known_flow".to_owned(), json!(77));
    packets.insert("trusted".to_owned(), json!(1));
    packets.insert("no_flow".to_owned(), json!(43));

    assert_eq!(
        server.json(Question::Status),
        json!({
            "schema_version": 1,
            "mode": "enforce",
            "range": { "first": 32768, "last": 60999 },
            "reserved": ["40000-40010", "50000"],
            "exposed": ["42222/tcp"],
            "trust": ["10.0.0.0/8"],
            "listeners": [
                { "protocol": "tcp", "port": 45000, "process": "dbus\u{1b}[2J", "pid": 812 },
                { "protocol": "udplite", "port": 45001, "process": null, "pid": null },
            ],
            "interfaces": [
                {
                    "name": "eth0", "guarded": true, "xdp_mode": "native", "egress": "tcx",
                    "received": "seen", "sent": "no_traffic",
                    "in_front": ["TCX program x (id 7)"],
                    "behind": ["u32 filter, priority 10, handle 800::800"],
                },
                {
                    "name": "eth1", "guarded": true, "xdp_mode": null, "egress": "clsact",
                    "received": "no_traffic", "sent": "unseen",
                    "in_front": [], "behind": [],
                },
            ],
            "flows": { "entries": 16, "capacity": 262_144 },
            "advice": null,
            "metrics_missing": null,
            "failed_sweeps": 0,
            "alarms": [
                { "device": "eth1", "kind": "detached", "text": "its XDP program was taken off" },
            ],
            "packets": packets,
        })
    );
}

#[test]
fn status_reads_back() {
    let server = Server::start(Fake::default());
    let status = Client::new(&server.socket).status().expect("answers");

    assert_eq!(
        status,
        StatusJson::from(&observation(config::Mode::Enforce))
    );
}

#[test]
fn flows_as_json() {
    let server = Server::start(Fake {
        flows: Some(2),
        ..Fake::default()
    });

    assert_eq!(
        server.text(Question::Flows),
        concat!(
            r#"[{"protocol":"tcp","local":"192.0.2.1:40000","remote":"198.51.100.7:443","#,
            r#""state":"tcp-established","idle_ms":0},"#,
            r#"{"protocol":"udp","local":"[2001:db8::1]:40001","remote":"[::]:0","#,
            r#""state":"multicast","idle_ms":1}]"#,
        )
    );
}

#[test]
fn flows_around_the_size_of_a_piece() {
    for flows in [0, 1, 255, 256, 257, 512, 100_000] {
        let server = Server::start(Fake {
            flows: Some(flows),
            ..Fake::default()
        });
        let answer = Client::new(&server.socket).flows().expect("answers");

        assert_eq!(answer.len(), flows);
        for (index, row) in answer.iter().enumerate() {
            assert_eq!(*row, FlowJson::from(&flow(index)), "{flows}");
        }
    }
}

#[test]
fn flows_that_cannot_be_read() {
    let server = Server::start(Fake::default());
    let failure = Client::new(&server.socket).flows().expect_err("fails");

    assert_eq!(failure.code, Exit::Runtime);
    assert_eq!(
        failure.to_string(),
        format!(
            "the daemon at {} cannot answer /flows: 500 Internal Server Error \
             map FLOWS_TCP4: cannot be read",
            server.socket.display()
        )
    );
}

#[test]
fn nobody_answers() {
    let folder = TempDir::new().expect("a folder");
    let missing = folder.path().join("control.sock");
    let stale = folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("binds"));

    for (socket, cause) in [
        (missing, "No such file or directory (os error 2)"),
        (stale, "Connection refused (os error 111)"),
    ] {
        let failure = Client::new(&socket).status().expect_err("fails");
        assert_eq!(failure.code, Exit::Unavailable);
        assert_eq!(
            failure.to_string(),
            format!(
                "no daemon answers at {}: {cause}; \
                 start it with portguard run, or name its socket with --control-socket",
                socket.display()
            )
        );
    }
}

#[test]
fn somebody_else_answers() {
    let folder = TempDir::new().expect("a folder");
    let socket = folder.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accepts");
        io::Write::write_all(&mut stream, b"220 mail\r\n").expect("sends");
    });
    let failure = Client::new(&socket).status().expect_err("fails");
    other.join().expect("no panic");

    assert_eq!(failure.code, Exit::Runtime);
    let line = failure.to_string();
    assert!(line.contains("gave no whole answer"), "{line}");
}

#[test]
fn other_paths_methods_and_garbage() {
    let server = Server::start(Fake::default());
    // request                                first line
    let table: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (
            b"POST /status HTTP/1.1\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
        ),
        (b"\xff\xff\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (b"GET /status HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
    ];
    runtime().block_on(async {
        for (request, line) in table {
            let mut stream = UnixStream::connect(&server.socket).await.expect("connects");
            stream.write_all(request).await.expect("sends");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("closes");
            let answer = String::from_utf8_lossy(&answer);
            assert_eq!(answer.lines().next(), Some(line));
        }
    });
}

/// However many read, and however slowly, a change is heard at once; and who reads beside them is
/// answered once one of them has ended.
#[test]
fn a_change_finds_room_beside_slow_readers() {
    const MANY: usize = LIMITS.connections + FOR_CHANGES;

    let server = Server::start(Fake {
        flows: Some(100_000),
        ..Fake::default()
    });
    let connect = || std::os::unix::net::UnixStream::connect(&server.socket).expect("connects");
    let slow: Vec<_> = (0..MANY)
        .map(|_| {
            let mut stream = connect();
            let request = b"GET /flows HTTP/1.1\r\nHost: x\r\n\r\n";
            io::Write::write_all(&mut stream, request).expect("sends");
            // So that it has asked, and what it has asked for is more than what fits in between.
            let mut line = [0; 12];
            io::Read::read_exact(&mut stream, &mut line).expect("reads");
            (stream, line)
        })
        .collect();
    let reading = slow.iter().filter(|(_, line)| line.ends_with(b"200"));
    assert_eq!(reading.count(), LIMITS.connections);

    let began = Instant::now();
    let failure = Client::new(&server.socket)
        .act(&Action::Reload)
        .expect_err("refused");
    assert_eq!(failure.code, Exit::BadConfiguration);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );

    let failure = Client::new(&server.socket).status().expect_err("no room");
    assert!(
        failure.to_string().contains("too many readers"),
        "{failure}"
    );
    let ended = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        drop(slow);
    });
    assert!(Client::new(&server.socket).status().is_ok());
    ended.join().expect("no panic");
}

/// A daemon that has much to look at says so, and one that does nothing is given up.
#[test]
fn a_long_answer_is_waited_for_and_silence_is_not() {
    let server = Server::start(Fake {
        walk: Duration::from_millis(1700),
        flows: Some(2),
        ..Fake::default()
    });
    let status = Client::new(&server.socket).status().expect("answers");
    assert_eq!(
        status,
        StatusJson::from(&observation(config::Mode::Enforce))
    );
    assert!(server.text(Question::Status).starts_with("  "));

    let folder = TempDir::new().expect("a folder");
    let socket = folder.path().join("control.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).expect("binds");
    let began = Instant::now();
    let failure = Client::new(&socket).status().expect_err("fails");
    assert!(began.elapsed() < Duration::from_secs(4), "{failure}");
    let line = failure.to_string();
    assert!(line.contains("nothing within 3 s"), "{line}");
}
