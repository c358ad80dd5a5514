//! What `portguard status` and `portguard flows` are told, over a Unix socket and read-only.

mod answer;
mod client;
mod socket;

use std::time::Duration;

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::stream;

pub use self::{
    answer::{Alarm, Flow, FlowTotals, Interface, Listener, Ports, SCHEMA_VERSION, Status},
    client::{Client, Question},
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

/// Serves `/status` and `/flows` until `stop`; then returns within 100 ms, and the socket is gone.
pub async fn run(socket: Socket, shared: Shared, stop: impl Future<Output = ()>) {
    let Socket { listener, file } = socket;
    connections::serve(listener, routes(shared), LIMITS, stop).await;
    drop(file);
}

pub(crate) fn routes(shared: Shared) -> Router {
    Router::new()
        .route(Question::Status.path(), get(status))
        .route(Question::Flows.path(), get(flows))
        .with_state(shared)
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
