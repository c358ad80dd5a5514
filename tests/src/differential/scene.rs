//! What a session is about: a policy, a host, and conversations that come up again and again.

use std::net::IpAddr;

use guard_reference::policy::{Host, Policy, Timers};

use super::{
    packets,
    places::{
        CONNECTED, DELIVERED, ELSEWHERE, ENDS_HERE, End, FORWARDING, OWN, OWN_LINKS, PEERS, ROUTES,
        SOCKET_PORTS, TCP, UDP, prefix, sockets, v4, v6,
    },
    random::Random,
};

/// Everything that a session's frames are made of.
pub struct Scene {
    /// What the user has asked for at first.
    pub policy: Policy,
    /// The host.
    pub host: Host,
    /// Conversations that come up again and again.
    pub talks: Vec<Talk>,
    /// Local ports that matter.
    pub ports: Vec<u16>,
    /// Pieces of datagrams among a hundred frames.
    pub pieces: usize,
}

/// Both ends of a conversation that frames are made for.
#[derive(Clone, Copy, Debug)]
pub struct Talk {
    /// The protocol's number.
    pub protocol: u8,
    /// This host's end.
    pub local: End,
    /// The peer's end.
    pub remote: End,
}

/// Remote ports that matter: DNS, HTTPS, the tunnels, the groups' and none.
const REMOTE_PORTS: [u16; 9] = [53, 53, 443, 443, 4789, 6081, 5353, 40_001, 0];

impl Scene {
    /// Makes one up. `kernel` where the host must be one that the kernel can be made to be.
    pub fn new(random: &mut Random, kernel: bool) -> Self {
        let policy = policy(random);
        let host = host(random, kernel);
        let mut ports = telling_ports(&policy);
        ports.extend(SOCKET_PORTS);
        let mut scene = Self {
            policy,
            host,
            talks: Vec::new(),
            ports,
            pieces: if random.chance(25) {
                50
            } else {
                packets::PIECES
            },
        };
        for _ in 0..3 + random.below(5) {
            let talk = scene.talk(random);
            scene.talks.push(talk);
        }
        if random.chance(20) {
            let dhcp = scene.dhcp(random);
            scene.talks.extend(dhcp);
        }
        if random.chance(60) {
            let (protocol, local, remote) = random.pick(&CONNECTED);
            scene.talks.push(Talk {
                protocol,
                local,
                remote,
            });
        }
        scene
    }

    /// A conversation.
    fn talk(&self, random: &mut Random) -> Talk {
        let family = usize::from(random.chance(50));
        let mut talk = Talk {
            protocol: random.pick(&[TCP, TCP, UDP, UDP, 136]),
            local: (OWN[family][0], self.port(random)),
            remote: (PEERS[family][0], random.pick(&REMOTE_PORTS)),
        };
        if random.chance(30) {
            talk = self.other(random, talk);
        }
        talk
    }

    /// A request of a DHCP client, and answers to it or nearly. They matter where its port is guarded.
    fn dhcp(&self, random: &mut Random) -> [Talk; 3] {
        let family = usize::from(random.chance(25));
        let asks = random.pick(&[v4(0, 0, 0, 0), OWN[0][0]]);
        let offered = random.pick(&[OWN[0][0], v4(10, 9, 0, 77), v4(255, 255, 255, 255)]);
        let (asks, everybody, offered) = match family {
            0 => (asks, v4(255, 255, 255, 255), offered),
            _ => (OWN[1][0], v6(0xff02, 0, 0, 0xfb), OWN[1][random.below(2)]),
        };
        let (client, server) = (
            random.pick(&[68, 68, 68, 68, 69]),
            random.pick(&[67, 67, 67, 67, 66]),
        );
        let talk = |local, remote, (client, server)| Talk {
            protocol: UDP,
            local: (local, client),
            remote: (remote, server),
        };
        let peer = random.pick(&PEERS[family]);
        [
            talk(asks, everybody, (client, server)),
            talk(offered, peer, (client, server)),
            talk(offered, peer, (client, server ^ 1)),
        ]
    }

    /// A local port, most often a guarded one.
    fn port(&self, random: &mut Random) -> u16 {
        let (first, last) = self.policy.range;
        match random.below(10) {
            0..4 => random.pick(&self.ports),
            4 => random.word(),
            _ => first.saturating_add(random.below(usize::from(last - first) + 1) as u16 & 0x3f),
        }
    }

    /// The same conversation but for one thing.
    pub fn other(&self, random: &mut Random, mut talk: Talk) -> Talk {
        let family = usize::from(talk.local.0.is_ipv6());
        match random.below(8) {
            0 => talk.local.0 = OWN[family][1],
            1 => talk.local.0 = random.pick(&ELSEWHERE[family]),
            2 => talk.local.1 = self.port(random),
            3 => talk.remote.0 = random.pick(&PEERS[family]),
            4 => talk.remote.0 = random.pick(&ELSEWHERE[family]),
            5 => talk.remote.1 = random.pick(&REMOTE_PORTS),
            6 => talk.remote.1 = talk.remote.1.wrapping_add(1),
            _ => talk.protocol = random.pick(&[TCP, UDP, 136]),
        }
        talk
    }
}

/// What the user asks for.
pub fn policy(random: &mut Random) -> Policy {
    let range = match random.below(8) {
        0 => (1024, 65_535),
        1 => (1, 65_535),
        2 => (40_000, 40_000),
        3 => (39_999, 40_003),
        4 => {
            let first = random.word();
            (first, first.saturating_add(random.below(3000) as u16))
        }
        _ => (32_768, 60_999),
    };
    let within = |random: &mut Random| {
        let (first, last) = range;
        first + (random.below(usize::from(last - first) + 1) as u16 & 0x3f).min(last - first)
    };
    let some = |random: &mut Random| {
        let count = random.below(4);
        (0..count).map(|_| within(random)).collect::<Vec<u16>>()
    };
    let mut reserved = some(random);
    if random.chance(20) {
        reserved.extend([range.0, range.1]);
    }
    let addresses = [
        IpAddr::from([0; 4]),
        IpAddr::from([0; 16]),
        OWN[0][0],
        OWN[1][0],
        v4(224, 0, 0, 81),
    ];
    let trusted = [
        prefix(v4(192, 0, 2, 0), 24),
        prefix(v4(10, 9, 1, 1), 32),
        prefix(v6(0x2001, 0xdb8, 0, 0), 64),
        prefix(v6(0xfd20, 0, 0, 0), 31),
    ];
    let mut timer = |limit: usize| 1 + random.below(limit) as u32;
    let timers = Timers {
        tcp_syn: timer(20),
        tcp_established: timer(60),
        tcp_transitory: timer(20),
        udp: timer(40),
        udp_dns: timer(20),
        multicast: timer(20),
        fragment: timer(20),
    };
    let exposed_tcp = some(random);
    // By what was drawn already, beside ports that conversations are about.
    let kernel = match timers.udp % 4 {
        1 => exposed_tcp
            .iter()
            .zip(timers.multicast as usize..)
            .map(|(port, which)| {
                (
                    addresses[which % addresses.len()],
                    port.saturating_add(1).max(64),
                )
            })
            .collect(),
        _ => Vec::new(),
    };
    Policy {
        range,
        reserved,
        exposed_tcp,
        exposed_udp: some(random),
        kernel,
        unrecorded: random.pick(&[vec![4789, 8472, 6081], vec![4789], vec![], vec![53]]),
        by_address: random.chance(30),
        rescue: random.chance(70),
        monitor: random.chance(20),
        trusted: if random.chance(30) {
            let count = 1 + random.below(trusted.len());
            trusted[..count].to_vec()
        } else {
            Vec::new()
        },
        timers,
    }
}

fn host(random: &mut Random, kernel: bool) -> Host {
    let plain = [prefix(OWN[0][0], 24), prefix(OWN[1][0], 64)];
    let addresses = match random.below(4) {
        0 => Vec::new(),
        1 => vec![
            prefix(OWN[0][1], 32),
            prefix(OWN[0][0], 30),
            prefix(OWN[1][0], 128),
            prefix(OWN[1][1], 16),
        ],
        _ => plain.to_vec(),
    };
    let local_table = match random.below(3) {
        0 => Vec::new(),
        1 => vec![prefix(OWN[0][0], 32), prefix(OWN[1][1], 128)],
        _ => [DELIVERED[0], DELIVERED[2], DELIVERED[4]]
            .map(|address| prefix(address, if address.is_ipv4() { 32 } else { 128 }))
            .into_iter()
            .chain([prefix(v4(127, 0, 0, 0), 8), prefix(v6(0xff00, 0, 0, 0), 8)])
            .collect(),
    };
    let diverted = match random.below(8) {
        0 => vec![prefix(v4(0, 0, 0, 0), 0), prefix(v6(0, 0, 0, 0), 0)],
        1 => vec![
            prefix(v4(198, 51, 100, 0), 24),
            prefix(v6(0xfd20, 0, 0, 0), 32),
        ],
        _ => Vec::new(),
    };
    let forwarding = if random.chance(50) {
        ENDS_HERE
    } else {
        random.pick(&FORWARDING)
    };
    Host {
        addresses,
        router: forwarding.routes,
        carries: forwarding.carries,
        shares: forwarding.shares,
        own_links: OWN_LINKS.to_vec(),
        some_forward: forwarding != ENDS_HERE || !diverted.is_empty() || random.chance(10),
        local_table,
        diverted,
        routing: forwarding.routing,
        delivered: DELIVERED.to_vec(),
        routes: ROUTES.to_vec(),
        sockets: sockets(),
        room: kernel || random.chance(85),
    }
}

/// The ports at which a policy changes its mind, and their neighbours.
pub fn telling_ports(policy: &Policy) -> Vec<u16> {
    let (first, last) = policy.range;
    let exempt = [&policy.reserved, &policy.exposed_tcp, &policy.exposed_udp];
    [first, last]
        .into_iter()
        .chain(exempt.into_iter().flatten().copied())
        .flat_map(|port| [port.saturating_sub(1), port, port.saturating_add(1)])
        .collect()
}
