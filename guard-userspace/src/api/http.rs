//! What Prometheus and health checks are told, over TCP and read-only.

pub(crate) mod connections;
mod shared;
#[cfg(any(test, fuzzing))]
pub(crate) mod test_guard;

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::net::{TcpListener, TcpSocket};

use self::connections::Limits;
pub use self::shared::{Glance, Shared};
use crate::{
    api::metrics,
    base::failure::{Exit, Failure},
    host::descriptors,
};

/// A hundred scrapes at once find room; each costs about as much memory as its buffers, 16 KiB.
const LIMITS: Limits = Limits {
    connections: 128,
    lifetime: Duration::from_secs(10),
    request: Duration::from_secs(5),
    patience: Duration::from_secs(1),
};

/// Connections that may wait. Beyond the usual 128, a scrape would be put off by a whole second.
const BACKLOG: u32 = 1024;

/// Binds the address that [`run`] serves.
///
/// # Errors
/// Exit code 69 when another process has the port, 77 when a privilege is missing, else 1.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    listen(address).map_err(|error| {
        let (code, remedy) = match error.kind() {
            ErrorKind::AddrInUse => (
                Exit::Unavailable,
                "stop what listens there, or give --metrics-listen another ADDR:PORT",
            ),
            ErrorKind::PermissionDenied => (
                Exit::NotPermitted,
                "run portguard as root, or give --metrics-listen a port above 1023",
            ),
            _ => (
                Exit::Runtime,
                "give --metrics-listen an address of this host",
            ),
        };
        let error = anyhow::Error::new(error).context(format!("cannot serve metrics on {address}"));

        Failure::new(code, error).remedy(remedy)
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Else connections of the daemon's predecessor keep the port for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;

    socket.listen(BACKLOG)
}

/// What clients may claim where so many more files can be opened.
fn limits(room: usize) -> Limits {
    Limits {
        connections: LIMITS.share_of(room, 3, 4),
        ..LIMITS
    }
}

/// Serves `/`, `/metrics`, `/healthz` and `/readyz` until `stop`; then returns within 100 ms.
pub async fn run(listener: TcpListener, shared: Shared, stop: impl Future<Output = ()>) {
    let limits = limits(descriptors::room(connections::MOST_ROOM));
    let routes = routes(shared);
    connections::serve(listener, |_| routes.clone(), limits, stop).await;
}

pub(crate) fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/", get(landing_page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(health))
        .with_state(shared)
}

/// What a browser finds at the address: links to the rest, and nothing about the host.
async fn landing_page() -> Html<&'static str> {
    Html(
        "<!doctype html><html lang=\"en\"><title>portguard</title><h1>portguard</h1><ul>\
         <li><a href=\"/metrics\">/metrics</a>: counters for Prometheus\
         <li><a href=\"/healthz\">/healthz</a>: whether every interface is guarded\
         <li><a href=\"/readyz\">/readyz</a>: the same</ul></html>\n",
    )
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match shared.glance().await {
        Ok(glance) => {
            let text = glance.metrics.clone();
            ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
        }
        Err(error) => failed(&error),
    }
}

async fn health(State(shared): State<Shared>) -> Response {
    if shared.guarded() {
        "ok".into_response()
    } else {
        let text = "not every interface is guarded as it should be; portguard status says why";
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

/// The answer when the guard cannot be observed.
pub(crate) fn failed(error: &anyhow::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response()
}

#[cfg(test)]
mod tests;
