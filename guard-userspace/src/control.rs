//! What `portguard status`, `flows` and `reload` are told, over a Unix socket that is root's alone.

mod answer;
mod client;
mod request;
mod socket;

use std::time::Duration;

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use tokio::{net::UnixStream, sync::mpsc};

pub use self::{
    answer::{Alarm, Flow, FlowTotals, Interface, Listener, Ports, SCHEMA_VERSION, Status},
    client::{Client, Question},
    request::{Peer, Reload, Reply},
    socket::Socket,
};
use crate::{
    control::answer::JsonRows,
    serve::{
        Shared,
        connections::{self, Limits},
        failed,
    },
};

/// Only root asks here, and may page through a million flows at leisure.
const LIMITS: Limits = Limits {
    connections: 32,
    lifetime: Duration::from_secs(600),
    request: Duration::from_secs(5),
    patience: Duration::from_secs(5),
};

/// Serves `/status` and `/flows` until `stop`, and passes on what is asked of the daemon by `/reload`;
/// then returns within 100 ms, and the socket is gone.
pub async fn run(
    socket: Socket,
    shared: Shared,
    reloads: mpsc::Sender<Reload>,
    stop: impl Future<Output = ()>,
) {
    let Socket { listener, file } = socket;
    let routes = |client: &UnixStream| routes(shared.clone(), reloads.clone(), Peer::of(client));
    connections::serve(listener, routes, LIMITS, stop).await;
    drop(file);
}

/// What a client with these credentials may ask.
pub(crate) fn routes(shared: Shared, reloads: mpsc::Sender<Reload>, peer: Peer) -> Router {
    let questions = Router::new()
        .route(Question::Status.path(), get(status))
        .route(Question::Flows.path(), get(flows))
        .with_state(shared);
    let changes = Router::new()
        .route(Question::Reload.path(), post(reload))
        .with_state((reloads, peer));

    questions.merge(changes)
}

async fn reload(State((reloads, peer)): State<(mpsc::Sender<Reload>, Peer)>) -> Response {
    match request::ask(&reloads, peer).await {
        Some(reply) => Json(reply).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending").into_response(),
    }
}

async fn status(State(shared): State<Shared>) -> Response {
    match shared.glance().await {
        Ok(glance) => Json(Status::from(&*glance.observation)).into_response(),
        Err(error) => failed(&error),
    }
}

/// The rows are written as JSON piece by piece, as fast as the client reads: a million flows are
/// in memory once, as rows, and never as text.
async fn flows(State(shared): State<Shared>) -> Response {
    match shared.flows().await {
        Ok(rows) => {
            let body = Body::from_stream(stream::iter(JsonRows::new(rows)));
            ([(CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => failed(&error),
    }
}

#[cfg(test)]
pub(crate) mod tests;
