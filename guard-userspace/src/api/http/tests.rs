mod hostile;

use std::{
    net::Ipv4Addr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{test_guard::Fake, *};

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

impl Server {
    async fn start(shared: Shared, limits: Limits) -> Self {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let done = tokio::spawn(connections::serve(
            listener,
            move |_: &_| routes(shared.clone()),
            limits,
            async {
                let _ = stopped.await;
            },
        ));

        Self {
            address,
            stop,
            done,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connects")
    }

    /// Sends bytes and reads until the server closes.
    async fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("sends");
        read(stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .await
    }

    /// Stops the server and says how long it took.
    async fn stop(self) -> Duration {
        let asked = Instant::now();
        self.stop.send(()).expect("runs");
        self.done.await.expect("no panic");
        asked.elapsed()
    }
}

/// What the server sends until it closes; what an abortive close takes back is not needed.
async fn read(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    let _ = timeout(Duration::from_secs(5), end).await.expect("closes");

    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn answers_by_path_and_method() {
    let (fake, shared) = Fake::default().shared();
    let server = Server::start(shared, LIMITS).await;
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    // request                                       first line
    let table: [(&[u8], &str); 10] = [
        (b"GET /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
        (b"GET /metrics?a=b HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK"),
        (
            b"GET /healthz HTTP/1.1\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable",
        ),
        (
            b"GET /readyz HTTP/1.1\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (b"GET /status HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (
            b"POST /metrics HTTP/1.1\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
        ),
        (
            b"DELETE /healthz HTTP/1.1\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
        ),
        (
            huge.as_bytes(),
            "HTTP/1.1 431 Request Header Fields Too Large",
        ),
    ];
    for (request, line) in table {
        let answer = server.send(request).await;
        let shown = String::from_utf8_lossy(&request[..request.len().min(40)]);
        assert_eq!(answer.lines().next(), Some(line), "{shown}");
    }

    fake.guarded.store(true, Ordering::SeqCst);
    for path in ["/healthz", "/readyz"] {
        let answer = server.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    }
}

#[tokio::test]
async fn metrics_are_openmetrics() {
    let (_, shared) = Fake::default().shared();
    let server = Server::start(shared, LIMITS).await;
    let answer = server.get("/metrics").await;

    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );
    assert!(body.ends_with("\n# EOF\n"));
}

#[tokio::test]
async fn read_failures_add_up() {
    let (_, shared) = Fake::default().shared();
    let server = Server::start(shared, LIMITS).await;
    server.get("/metrics").await;

    let again = server.get("/metrics").await;
    assert!(
        again.contains("\nportguard_read_failures_total 2\n"),
        "{again}"
    );
}

#[tokio::test]
async fn a_hundred_scrapes_at_once_cost_two_walks() {
    let (fake, shared) = Fake {
        walk: Duration::from_millis(50),
        ..Fake::default()
    }
    .shared();
    let server = Server::start(shared, LIMITS).await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(server.connect().await);
    }
    let mut scrapes = Vec::new();
    for mut stream in streams {
        scrapes.push(tokio::spawn(async move {
            let request = b"GET /metrics HTTP/1.1\r\n\r\n";
            stream.write_all(request).await.expect("sends");
            read(stream).await
        }));
    }
    for scrape in scrapes {
        let answer = scrape.await.expect("no panic");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }

    assert!(fake.walks() <= 2, "{} walks", fake.walks());
}

#[tokio::test]
async fn no_answer_is_older_than_its_question() {
    let (fake, shared) = Fake::default().shared();
    for walks in 1..=3 {
        shared.glance().await.expect("observes");
        assert_eq!(fake.walks(), walks);
    }
}

#[tokio::test]
async fn clients_that_go_away_do_not_multiply_walks() {
    let (fake, shared) = Fake {
        walk: Duration::from_millis(100),
        ..Fake::default()
    }
    .shared();
    for _ in 0..20 {
        let impatient = timeout(Duration::from_millis(5), shared.glance()).await;
        assert!(impatient.is_err());
    }

    // 100 ms of impatience, the rests between walks left out of account.
    assert!(fake.walks() <= 2, "{} walks", fake.walks());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = bind((Ipv4Addr::LOCALHOST, 0).into()).await.expect("binds");
    let address = first.local_addr().expect("an address");
    let failure = bind(address).await.expect_err("is taken");

    assert_eq!(failure.code, Exit::Unavailable);
    assert!(
        failure
            .to_string()
            .starts_with(&format!("cannot serve metrics on {address}: ")),
        "{failure}"
    );
}

/// As `nc` and `socat` do when they are fed by a pipe.
#[tokio::test]
async fn a_client_may_end_its_side_and_wait() {
    let fake = Fake {
        walk: Duration::from_millis(50),
        ..Fake::default()
    };
    let (_, shared) = fake.shared();
    let server = Server::start(shared, LIMITS).await;
    let mut stream = server.connect().await;
    let request = b"GET /metrics HTTP/1.0\r\n\r\n";
    stream.write_all(request).await.expect("sends");
    stream.shutdown().await.expect("ends its side");
    let answer = read(stream).await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer:?}");
    assert!(answer.ends_with("# EOF\n"), "{answer:?}");
    server.stop().await;
}
