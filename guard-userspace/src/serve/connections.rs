//! HTTP/1 over any listener, for clients that cannot be trusted to behave.

use std::{collections::VecDeque, time::Duration};

use axum::{Router, serve::Listener};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    pin, select,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

/// A request line with its headers is shorter; hyper takes no less.
const BUFFER: usize = 8 * 1024;

/// Time for answers under way when the server stops.
const GRACE: Duration = Duration::from_millis(50);

/// What clients may claim of the daemon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections open at once; the next ones wait in the kernel's queue.
    pub connections: usize,
    /// Time for one connection, which serves one request.
    pub lifetime: Duration,
    /// Time for sending a request's headers.
    pub request: Duration,
    /// Time for the oldest connection while no other can be accepted.
    pub patience: Duration,
}

/// Serves to each client what `routes` has for it, until `stop`.
///
/// A connection serves one request and ends, so none idles. While all are taken, the oldest is
/// closed as soon as it has had `patience`, so slow clients cannot keep others out.
pub(crate) async fn serve<L: Listener>(
    mut listener: L,
    routes: impl Fn(&L::Io) -> Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<(Instant, AbortHandle)> = VecDeque::new();
    pin!(stop);

    loop {
        by_age.retain(|(_, connection)| !connection.is_finished());
        let full = by_age.len() >= limits.connections;
        let oldest = by_age
            .front()
            .map_or_else(Instant::now, |(since, _)| *since);
        select! {
            () = &mut stop => break,
            (io, _) = listener.accept(), if !full => {
                let connection = connections.spawn(answer(routes(&io), io, limits));
                by_age.push_back((Instant::now(), connection));
            }
            () = sleep_until(oldest + limits.patience), if full => {
                if let Some((_, connection)) = by_age.pop_front() {
                    connection.abort();
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }

    drop(listener);
    let answered = async { while connections.join_next().await.is_some() {} };
    // Whoever is not done by then is cut off with the set.
    let _ = timeout(GRACE, answered).await;
}

/// Answers one connection that lasts no longer than `time`.
#[cfg(any(test, fuzzing))]
pub(crate) async fn answer_once<Io>(io: Io, routes: Router, time: Duration)
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let limits = Limits {
        connections: 1,
        lifetime: time,
        request: time,
        patience: time,
    };
    answer(routes, io, limits).await;
}

async fn answer<Io>(routes: Router, io: Io, limits: Limits)
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request)
        .keep_alive(false)
        // Who has sent all of a request may end its side and wait, as `nc` does.
        .half_close(true)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(routes));

    // A client's mistakes are its own: it gets 400, or no answer.
    let _ = timeout(limits.lifetime, connection).await;
}
