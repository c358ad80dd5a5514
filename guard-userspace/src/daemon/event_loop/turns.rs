//! Reloads that others ask for while something else is under way: they wait their turn, but not long.

use std::{collections::VecDeque, future, time::Duration};

use tokio::{
    select,
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    api::control::{Reload, Reply},
    base::failure::Failure,
};

/// How long a reload waits its turn.
const TURN: Duration = Duration::from_millis(500);

/// Reloads that are asked for over the control socket.
pub(super) struct Turns {
    asked: mpsc::Receiver<Reload>,
    /// Those that were asked for while something else was under way, and until when they wait.
    waiting: VecDeque<(Instant, Reload)>,
}

impl Turns {
    /// None are waiting.
    pub(super) const fn new(asked: mpsc::Receiver<Reload>) -> Self {
        Self {
            asked,
            waiting: VecDeque::new(),
        }
    }

    /// Waits for the reload whose turn is next.
    pub(super) async fn next(&mut self) -> Reload {
        if let Some((_, reload)) = self.waiting.pop_front() {
            return reload;
        }
        match self.asked.recv().await {
            Some(reload) => reload,
            // The control socket is gone.
            None => future::pending().await,
        }
    }

    /// Does `work`. Reloads that are asked for meanwhile wait, and are refused once they have waited
    /// for so long that the work is held up by the kernel.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            let first = self.waiting.front().map(|(until, _)| *until);
            let overdue = async {
                match first {
                    Some(until) => sleep_until(until).await,
                    None => future::pending().await,
                }
            };
            select! {
                biased;
                done = &mut work => return done,
                Some(reload) = self.asked.recv() => {
                    self.waiting.push_back((Instant::now() + TURN, reload));
                }
                () = overdue => {
                    if let Some((_, reload)) = self.waiting.pop_front() {
                        refuse(reload);
                    }
                }
            }
        }
    }
}

fn refuse(reload: Reload) {
    let failure = Failure::from(anyhow::anyhow!(
        "not reloaded: a change is under way, and the kernel takes long to say what sockets or flows \
         there are"
    ))
    .remedy("try again in a while");
    tracing::warn!("reload: asked for by {}: {failure}", reload.peer);
    // The caller may have gone away meanwhile.
    let _ = reload.answer.send(Reply::from(Err(failure)));
}

#[cfg(test)]
mod tests {
    use tokio::{sync::oneshot, time::sleep};

    use super::*;
    use crate::api::control::Peer;

    fn ask(asks: &mpsc::Sender<Reload>) -> oneshot::Receiver<Reply> {
        let (answer, outcome) = oneshot::channel();
        let peer = Peer::default();
        asks.try_send(Reload { peer, answer })
            .expect("there is room");
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_waits_its_turn_but_not_long() {
        let (asks, asked) = mpsc::channel(1);
        let mut turns = Turns::new(asked);
        let mut early = ask(&asks);
        turns.during(sleep(TURN / 2)).await;
        assert!(early.try_recv().is_err(), "it was refused at once");
        let next = turns.next().await;
        let _ = next.answer.send(Reply::from(Ok("its turn".to_owned())));
        assert_eq!(early.await.expect("is answered").text, "its turn");

        let mut late = ask(&asks);
        turns.during(sleep(TURN * 2)).await;
        let reply = late.try_recv().expect("is answered meanwhile");
        assert!(reply.code != 0 && reply.text.contains("a change is under way"));
        assert!(turns.waiting.is_empty());
    }
}
