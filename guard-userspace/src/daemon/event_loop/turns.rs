//! Changes that clients ask for while something else is under way: they wait their turn, but not long.

use std::{collections::VecDeque, future, time::Duration};

use tokio::{
    select,
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    api::control::{ActionRequest, Reply},
    base::failure::Failure,
};

/// How long a request waits its turn.
const TURN: Duration = Duration::from_millis(500);

/// What is asked for over the control socket.
pub(super) struct Turns {
    asked: mpsc::Receiver<ActionRequest>,
    /// What was asked for while something else was under way, and until when it waits.
    waiting: VecDeque<(Instant, ActionRequest)>,
}

impl Turns {
    /// Nothing waits.
    pub(super) const fn new(asked: mpsc::Receiver<ActionRequest>) -> Self {
        Self {
            asked,
            waiting: VecDeque::new(),
        }
    }

    /// Waits for the request whose turn is next; while a change is under way, for ever. Requests that are
    /// asked for meanwhile wait, and are refused once they have waited for so long that the kernel holds
    /// the change up.
    pub(super) async fn next(&mut self, changing: bool) -> ActionRequest {
        loop {
            if !changing && let Some((_, request)) = self.waiting.pop_front() {
                return request;
            }
            let first = self.waiting.front().map(|(until, _)| *until);
            let overdue = async {
                match first {
                    Some(until) => sleep_until(until).await,
                    None => future::pending().await,
                }
            };
            select! {
                biased;
                Some(request) = self.asked.recv() => {
                    self.waiting.push_back((Instant::now() + TURN, request));
                }
                () = overdue => {
                    if let Some((_, request)) = self.waiting.pop_front() {
                        refuse(request);
                    }
                }
            }
        }
    }
}

fn refuse(request: ActionRequest) {
    let failure = Failure::from(anyhow::anyhow!(
        "nothing is done: a change is under way, and the kernel takes long to say what sockets or flows \
         there are"
    ))
    .remedy("try again in a while");
    let (action, peer) = (request.action.name(), request.peer);
    tracing::warn!("{action}: asked for by {peer}: {failure}");
    // The caller may have gone away meanwhile.
    let _ = request.answer.send(Reply::from(Err(failure)));
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time::timeout};

    use super::*;
    use crate::api::control::{Action, Peer};

    fn ask(asks: &mpsc::Sender<ActionRequest>) -> oneshot::Receiver<Reply> {
        let (answer, outcome) = oneshot::channel();
        let (peer, action) = (Peer::default(), Action::Reload);
        asks.try_send(ActionRequest {
            peer,
            action,
            answer,
        })
        .expect("there is room");
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_its_turn_but_not_long() {
        let (asks, asked) = mpsc::channel(1);
        let mut turns = Turns::new(asked);
        let mut early = ask(&asks);
        let changing = timeout(TURN / 2, turns.next(true)).await;
        assert!(
            changing.is_err(),
            "it was its turn while a change was under way"
        );
        assert!(early.try_recv().is_err(), "it was refused at once");
        let next = turns.next(false).await;
        let _ = next.answer.send(Reply::from(Ok("its turn".to_owned())));
        assert_eq!(early.await.expect("is answered").text, "its turn");

        let mut late = ask(&asks);
        assert!(timeout(TURN * 2, turns.next(true)).await.is_err());
        let reply = late.try_recv().expect("is answered meanwhile");
        assert!(reply.code != 0 && reply.text.contains("a change is under way"));
        assert!(turns.waiting.is_empty());
    }
}
