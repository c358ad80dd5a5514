//! HTTP/1 over any listener, for clients that cannot be trusted to behave.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, serve::Listener};
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    pin, select,
    task::{AbortHandle, JoinSet, yield_now},
    time::{Instant, sleep_until, timeout},
};

/// A request line with its headers is shorter; hyper takes no less.
const BUFFER: usize = 8 * 1024;

/// Time for answers under way when the server stops.
const GRACE: Duration = Duration::from_millis(50);

/// Time for a new client to begin, for each connection that may be open. So no more than 6,700 clients a
/// second are accepted and closed again unheard, and the thousandth in a row waits 150 ms.
const FRESH: Duration = Duration::from_micros(150);

/// What clients may claim of the daemon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections open at once; a new one takes the place of one that has asked nothing yet.
    pub connections: usize,
    /// Time for one connection, which serves one request.
    pub lifetime: Duration,
    /// Time for sending a request's headers.
    pub request: Duration,
    /// Time for the oldest answer while no other connection can be accepted.
    pub patience: Duration,
}

/// Open files that are kept for what matters more than clients: following the range, the sockets and
/// the interfaces.
const RESERVE: usize = 48;
/// Fewer clients at once are no service.
const FEWEST: usize = 4;
/// More room for open files changes nothing.
pub(crate) const MOST_ROOM: usize = 320;

impl Limits {
    /// As many connections as these limits allow, but no more than this part of the room for open
    /// files that nothing else needs.
    pub(crate) fn share_of(self, room: usize, part: usize, of: usize) -> usize {
        let share = room.saturating_sub(RESERVE) * part / of;

        self.connections.min(share.max(FEWEST))
    }
}

/// How far a client has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
enum Stage {
    /// It has said nothing.
    Silent,
    /// It has begun to ask.
    Asking,
    /// It has asked, and is or will be answered.
    Asked,
}

/// How far a client has come, as its connection notes it.
#[derive(Debug)]
struct Progress(AtomicU8);

impl Progress {
    fn new() -> Self {
        Self(AtomicU8::new(Stage::Silent as u8))
    }

    fn reach(&self, stage: Stage) {
        self.0.fetch_max(stage as u8, Ordering::Relaxed);
    }

    fn stage(&self) -> Stage {
        match self.0.load(Ordering::Relaxed) {
            0 => Stage::Silent,
            1 => Stage::Asking,
            _ => Stage::Asked,
        }
    }
}

/// A connection that is open.
struct Open {
    since: Instant,
    progress: Arc<Progress>,
    task: AbortHandle,
}

/// Connections by their age, the oldest first.
#[derive(Default)]
struct ByAge(VecDeque<Open>);

impl ByAge {
    /// Where the one is whose place a new one takes, and from when on: the oldest that has not asked,
    /// and where all have, the oldest of all.
    fn next_to_go(&self, limits: Limits) -> Option<(usize, Instant)> {
        let silent = |open: &Open| open.progress.stage() != Stage::Asked;
        let (place, time) = match self.0.iter().position(silent) {
            Some(place) => (place, FRESH * limits.connections as u32),
            None => (0, limits.patience),
        };

        self.0.get(place).map(|open| (place, open.since + time))
    }

    fn close(&mut self, place: usize) {
        if let Some(open) = self.0.remove(place) {
            open.task.abort();
        }
    }
}

/// Serves to each client what `routes` has for it, until `stop`.
///
/// A connection serves one request and ends, so none idles. While as many are open as may be, a new
/// one takes the place of the oldest that has not asked anything; where all have asked, of the oldest
/// that has had `patience` for its answer. So slow clients cannot keep others out.
pub(crate) async fn serve<L: Listener>(
    mut listener: L,
    routes: impl Fn(&L::Io) -> Router,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let mut connections = JoinSet::new();
    let mut by_age = ByAge::default();
    pin!(stop);

    loop {
        by_age.0.retain(|open| !open.task.is_finished());
        let full = by_age.0.len() >= limits.connections;
        let next_to_go = by_age.next_to_go(limits).filter(|_| full);
        let free_at = next_to_go.map_or_else(Instant::now, |(_, free_at)| free_at);
        let stuck = free_at > Instant::now();
        select! {
            biased;
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            (io, _) = listener.accept(), if !stuck => {
                // Some may have asked, or ended, while this one was waited for.
                by_age.0.retain(|open| !open.task.is_finished());
                let full = by_age.0.len() >= limits.connections;
                let next_to_go = by_age.next_to_go(limits).filter(|_| full);
                if let Some((place, _)) = next_to_go {
                    by_age.close(place);
                }
                let progress = Arc::new(Progress::new());
                let routes = routes(&io);
                let answered = answer(io, routes, limits, Arc::clone(&progress));
                by_age.0.push_back(Open {
                    since: Instant::now(),
                    progress,
                    task: connections.spawn(answered),
                });
                // What it has sent already is to be read before others take its place.
                yield_now().await;
            }
            () = sleep_until(free_at), if stuck => {}
        }
    }

    drop(listener);
    let answered = async { while connections.join_next().await.is_some() {} };
    // Connections that are not done by then are closed with the set.
    let _ = timeout(GRACE, answered).await;
}

/// Answers one connection that lasts no longer than `time`.
#[cfg(any(test, fuzzing))]
pub(crate) async fn answer_once<Io>(io: Io, routes: Router, time: Duration)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = Limits {
        connections: 1,
        lifetime: time,
        request: time,
        patience: time,
    };
    answer(io, routes, limits, Arc::new(Progress::new())).await;
}

async fn answer<Io>(io: Io, routes: Router, limits: Limits, progress: Arc<Progress>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(|request| {
        progress.reach(Stage::Asked);
        routes.call(request)
    });
    let io = Noting {
        io,
        progress: &progress,
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request)
        .keep_alive(false)
        // Who has sent all of a request may end its side and wait, as `nc` does.
        .half_close(true)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(io), service);

    // A client's mistakes are its own: it gets 400, or no answer.
    let _ = timeout(limits.lifetime, connection).await;
}

/// A connection that notes when something was read from it.
struct Noting<'a, Io> {
    io: Io,
    progress: &'a Progress,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Noting<'_, Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.progress.reach(Stage::Asking);
        }

        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Noting<'_, Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
