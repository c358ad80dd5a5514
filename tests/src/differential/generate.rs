//! Sessions made up from a number.

use std::sync::LazyLock;

use guard_common::outcome::Direction;
use guard_reference::memory::Purpose;

use super::{
    packets::{self, Sender},
    places,
    random::Random,
    scene::{self, Scene, Talk},
    session::{Session, Step},
};
use crate::{
    cases,
    programs::{LONGEST_WHOLE, can_be_sent},
};

/// The frames that somebody did think of.
static CASES: LazyLock<Vec<(Direction, Vec<u8>)>> = LazyLock::new(cases::frames);

/// Whom a session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Audience {
    /// The policy in memory alone.
    Memory,
    /// The loaded programs as well: frames that test-run takes, and a host that can be built.
    Programs,
}

/// Makes up the session with this number.
pub fn session(seed: u64, length: usize, audience: Audience) -> Session {
    let mut random = Random::new(seed);
    let mut scene = Scene::new(&mut random, audience == Audience::Programs);
    let (policy, host) = (scene.policy.clone(), scene.host.clone());
    let steps = (0..length)
        .map(|_| step(&mut random, &mut scene, audience))
        .collect();
    Session {
        policy,
        host,
        steps,
    }
}

fn step(random: &mut Random, scene: &mut Scene, audience: Audience) -> Step {
    match random.below(200) {
        0..6 => {
            let (direction, frame) = random.pick(&CASES);
            match direction {
                Direction::Ingress => received(random, frame, audience),
                Direction::Egress => sent(random, frame, audience),
            }
        }
        6..104 => {
            let talk = talk(random, scene, 20);
            let frame = packets::frame(random, &talk, Sender::There, scene.pieces);
            received(random, frame, audience)
        }
        104..156 => {
            let talk = talk(random, scene, 12);
            let frame = packets::frame(random, &talk, Sender::Here, scene.pieces);
            sent(random, frame, audience)
        }
        156..172 => {
            let talk = talk(random, scene, 20);
            let router = if random.chance(50) {
                talk.remote.0
            } else {
                scene.other(random, talk).remote.0
            };
            let frame = packets::message(random, &talk, router);
            if random.chance(90) {
                received(random, frame, audience)
            } else {
                sent(random, frame, audience)
            }
        }
        172..177 => {
            let talk = talk(random, scene, 20);
            let frame = packets::other(random, &talk);
            received(random, frame, audience)
        }
        177..187 => Step::Wait(wait(random, scene)),
        187..192 => Step::Sweep(random.pick(&[1, 1, 1, 1, 2, 3, 253, 255])),
        192..196 => mark(random, scene),
        196..198 => Step::Back(1 + random.below(3) as u32),
        _ => reload(random, scene),
    }
}

/// One of the conversations, now and then with a difference.
fn talk(random: &mut Random, scene: &Scene, different: usize) -> Talk {
    let talk = random.pick(&scene.talks);
    if random.chance(different) {
        scene.other(random, talk)
    } else {
        talk
    }
}

/// As test-run takes it.
fn cut(random: &mut Random, mut frame: Vec<u8>, audience: Audience) -> Vec<u8> {
    if random.chance(12) {
        packets::damage(random, &mut frame);
    }
    if audience == Audience::Programs {
        frame.truncate(LONGEST_WHOLE);
    }
    frame
}

fn received(random: &mut Random, frame: Vec<u8>, audience: Audience) -> Step {
    let mut frame = cut(random, frame, audience);
    if audience == Audience::Memory && random.chance(1) {
        frame.truncate(random.below(14));
    }
    Step::Receive(frame)
}

fn sent(random: &mut Random, frame: Vec<u8>, audience: Audience) -> Step {
    let frame = cut(random, frame, audience);
    if audience == Audience::Programs && !can_be_sent(&frame) {
        return Step::Receive(frame);
    }
    if random.chance(10) {
        Step::Forward(frame)
    } else {
        Step::Send(frame)
    }
}

/// Ticks around a timer, or a few.
fn wait(random: &mut Random, scene: &Scene) -> u32 {
    let timers = &scene.policy.timers;
    let around = [
        timers.tcp_syn,
        timers.tcp_established,
        timers.tcp_transitory,
        timers.udp,
        timers.udp_dns,
        timers.multicast,
        timers.fragment,
    ];
    match random.below(3) {
        0 => 1 + random.below(3) as u32,
        1 => (random.pick(&around) + random.below(3) as u32).saturating_sub(1),
        _ => random.pick(&around) / 2,
    }
}

fn mark(random: &mut Random, scene: &Scene) -> Step {
    let purposes = [Purpose::Tcp, Purpose::Udp, Purpose::UdpLite, Purpose::Query];
    let epoch = random.pick(&[0, 0, 0, 1, 1, 2, 3, 128, 253, 254, 255, 255]);
    if random.chance(70) {
        let talk = random.pick(&scene.talks);
        let purpose = match talk.protocol {
            6 => Purpose::Tcp,
            17 => Purpose::Udp,
            _ => Purpose::UdpLite,
        };
        return Step::Mark(purpose, talk.local.1, epoch);
    }
    Step::Mark(random.pick(&purposes), random.pick(&scene.ports), epoch)
}

/// Another policy, most often one that differs in a single thing.
fn reload(random: &mut Random, scene: &mut Scene) -> Step {
    let new = scene::policy(random);
    let policy = &mut scene.policy;
    match random.below(8) {
        0 => *policy = new,
        1 => policy.range = new.range,
        2 => policy.reserved = new.reserved,
        3 => {
            policy.exposed_tcp = new.exposed_tcp;
            policy.exposed_udp = new.exposed_udp;
            policy.kernel = new.kernel;
        }
        4 => policy.timers = new.timers,
        5 => policy.by_address = new.by_address,
        6 => policy.monitor = new.monitor,
        _ => policy.rescue = new.rescue,
    }
    scene.ports = scene::telling_ports(policy);
    scene.ports.extend(places::SOCKET_PORTS);
    Step::Reload(Box::new(policy.clone()))
}
