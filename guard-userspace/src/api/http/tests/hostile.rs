//! Clients that do not behave.

use super::*;

const QUICK: Limits = Limits {
    connections: 4,
    lifetime: Duration::from_millis(400),
    request: Duration::from_millis(200),
    patience: Duration::from_millis(100),
};

#[tokio::test]
async fn garbage_is_answered_or_cut_off_and_hurts_nobody() {
    let (_, shared) = Fake::default().shared();
    let server = Server::start(shared, QUICK).await;
    let table: [&[u8]; 6] = [
        b"\x00\x01\x02\xff\xfe\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
        &[b'a'; 1 << 20],
    ];
    for garbage in table {
        let mut stream = server.connect().await;
        // The server may close before it has read everything.
        let _ = stream.write_all(garbage).await;
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        let _ = timeout(Duration::from_secs(2), end).await.expect("closes");
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }

    assert!(server.get("/metrics").await.ends_with("# EOF\n"));
}

#[tokio::test]
async fn slow_clients_are_closed() {
    let (_, shared) = Fake::default().shared();
    let server = Server::start(shared, QUICK).await;
    let mut stream = server.connect().await;
    let began = Instant::now();
    for byte in b"GET /metrics HTTP/1.1\r\nX: ".iter().cycle() {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
        assert!(began.elapsed() < Duration::from_secs(2), "still open");
    }

    let silent = server.connect().await;
    assert_eq!(read(silent).await, "");
}

#[tokio::test]
async fn slow_clients_keep_nobody_out() {
    // No connection is closed because it is old.
    let limits = Limits {
        lifetime: Duration::from_secs(60),
        request: Duration::from_secs(60),
        patience: Duration::from_secs(60),
        ..QUICK
    };
    for said in ["", "GET /"] {
        let (_, shared) = Fake::default().shared();
        let server = Server::start(shared, limits).await;
        let mut slow = Vec::new();
        for _ in 0..300 {
            let mut stream = server.connect().await;
            stream.write_all(said.as_bytes()).await.expect("sends");
            slow.push(stream);
        }

        let answer = timeout(Duration::from_secs(1), server.get("/metrics")).await;
        assert!(answer.expect("gets its turn").ends_with("# EOF\n"));
        // Those that came last are still there.
        let last = slow.pop().expect("is there");
        let closed = timeout(Duration::from_millis(50), read(last)).await;
        assert!(closed.is_err(), "{said:?}: {closed:?}");
        let first = timeout(Duration::from_secs(1), read(slow.swap_remove(0))).await;
        assert_eq!(first.expect("closes"), "", "{said:?}");
    }
}

#[test]
fn clients_leave_room_for_what_matters() {
    // room, connections
    let table = [
        (0, 4),
        (48, 4),
        (56, 6),
        (100, 39),
        (320, 128),
        (10_000, 128),
    ];
    for (room, connections) in table {
        assert_eq!(LIMITS.share_of(room, 3, 4), connections, "{room}");
    }
}

/// A client that asks is served although others come faster than they could be answered.
#[tokio::test]
async fn a_flood_of_silent_clients_puts_nobody_off() {
    let (_, shared) = Fake {
        walk: Duration::from_millis(50),
        ..Fake::default()
    }
    .shared();
    let server = Server::start(shared, QUICK).await;
    let address = server.address;
    let flood = tokio::spawn(async move {
        let mut all = std::collections::VecDeque::new();
        loop {
            if let Ok(stream) = TcpStream::connect(address).await {
                all.push_back(stream);
            }
            if all.len() > 200 {
                all.pop_front();
            }
        }
    });
    sleep(Duration::from_millis(100)).await;
    for _ in 0..5 {
        let answer = timeout(Duration::from_secs(1), server.get("/metrics")).await;
        assert!(answer.expect("gets its turn").ends_with("# EOF\n"));
    }
    flood.abort();
}

#[tokio::test]
async fn clients_that_do_not_read_keep_nobody_out() {
    let (_, shared) = Fake {
        walk: Duration::from_millis(300),
        ..Fake::default()
    }
    .shared();
    let server = Server::start(shared, QUICK).await;
    let mut asked = Vec::new();
    for _ in 0..20 {
        let mut stream = server.connect().await;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
            .await
            .expect("sends");
        asked.push(stream);
    }
    let answer = timeout(Duration::from_secs(5), server.get("/healthz")).await;
    assert!(!answer.expect("gets its turn").is_empty());
}

#[tokio::test]
async fn stops_within_100_ms_whatever_clients_do() {
    let (_, shared) = Fake {
        walk: Duration::from_millis(300),
        ..Fake::default()
    }
    .shared();
    let server = Server::start(shared, LIMITS).await;
    let address = server.address;
    let _silent = server.connect().await;
    let mut waiting = server.connect().await;
    waiting
        .write_all(b"GET /metrics HTTP/1.1\r\n\r\n")
        .await
        .expect("sends");
    sleep(Duration::from_millis(20)).await;

    let took = server.stop().await;
    assert!(took < Duration::from_millis(100), "{took:?}");
    assert!(TcpStream::connect(address).await.is_err());
}
