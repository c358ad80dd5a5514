//! Sessions from bytes that coverage guides to.
//!
//! The first byte chooses the policy and the host. Then come steps: a byte of what happens, a
//! byte of how much, and for frames so many bytes.

use guard_reference::{memory::Purpose, rules::Rules};

use super::{
    random::Random,
    scene::Scene,
    session::{Session, Step},
    trial::{self, Ending},
};

/// The name of the corpus, and what reads it.
pub const TARGET: (&str, fn(&[u8])) = ("frames", compare);

/// Compares the reference and the policy in memory on the session that these bytes stand for.
///
/// # Panics
///
/// When they differ.
pub fn compare(bytes: &[u8]) {
    let Some(session) = decode(bytes) else {
        return;
    };
    if let Ending::Differs(difference) = trial::in_memory(&session, &Rules::default()) {
        panic!("{difference}\n\n{session}");
    }
}

/// The session that these bytes stand for.
pub fn decode(bytes: &[u8]) -> Option<Session> {
    let (first, mut rest) = bytes.split_first()?;
    let scene = Scene::new(&mut Random::new(u64::from(*first)), false);
    let mut steps = Vec::new();
    while let [what, much, following @ ..] = rest {
        rest = following;
        let step = match what % 8 {
            0..3 => Step::Receive(take(&mut rest, *much)),
            3 => Step::Send(take(&mut rest, *much)),
            4 => Step::Forward(take(&mut rest, *much)),
            5 => Step::Wait(u32::from(*much)),
            6 => Step::Sweep(*much),
            _ => {
                let port = scene.ports[usize::from(*much) % scene.ports.len()];
                let purpose = match what >> 6 {
                    0 => Purpose::Tcp,
                    1 => Purpose::Udp,
                    2 => Purpose::UdpLite,
                    _ => Purpose::Query,
                };
                Step::Mark(purpose, port, (what >> 3) & 7)
            }
        };
        steps.push(step);
    }
    Some(Session {
        policy: scene.policy,
        host: scene.host,
        steps,
    })
}

/// The bytes that stand for a single frame to a guard of this number.
pub fn encode(guard: u8, received: bool, frame: &[u8]) -> Vec<u8> {
    let length = frame.len().min(255);
    let mut bytes = vec![guard, if received { 0 } else { 3 }, length as u8];
    bytes.extend(&frame[..length]);
    bytes
}

fn take(rest: &mut &[u8], length: u8) -> Vec<u8> {
    let (taken, left) = rest.split_at(rest.len().min(usize::from(length)));
    *rest = left;
    taken.to_vec()
}
