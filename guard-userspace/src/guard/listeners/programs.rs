//! Which programs listen, and whether their ports are fixed. Pure.
//!
//! The kernel does not tell whether a port was asked for. But it gives listeners of TCP the odd ones
//! of its range, counted from the first, and leaves the even ones for connections
//! (`inet_csk_find_open_port`, net/ipv4/inet_connection_sock.c); and a program that is seen on
//! another port each time has not been told which to take.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::frame::transport::Transport;

use super::Listener;
use crate::host::{range::PortRange, socket_owners::SocketOwner};

/// Programs that are remembered, and ports of each.
const MOST_PROGRAMS: usize = 256;
const MOST_PORTS: usize = 64;

/// How a listener came to its port, as far as can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// It was asked for.
    Fixed,
    /// It is another one at each start.
    Changing,
    /// Either.
    Unknown,
}

/// What earlier surveys have shown of each program.
#[derive(Clone, Debug, Default)]
pub struct ListeningPrograms(BTreeMap<String, Program>);

#[derive(Clone, Debug, Default)]
struct Program {
    ports: BTreeSet<(u8, u16)>,
    changes: bool,
}

impl ListeningPrograms {
    /// Remembers what one survey has found.
    pub fn note(&mut self, listeners: &[Listener]) {
        let mut present = BTreeMap::<&str, BTreeSet<(u8, u16)>>::new();
        for listener in listeners {
            if let SocketOwner::Process { name, .. } = &listener.owner {
                let ports = present.entry(name).or_default();
                ports.insert((listener.transport as u8, listener.port));
            }
        }
        for (name, ports) in present {
            if !self.0.contains_key(name) && self.0.len() == MOST_PROGRAMS {
                continue;
            }
            let program = self.0.entry(name.to_owned()).or_default();
            program.changes |= program.moved_to(&ports);
            for port in ports {
                if program.ports.len() < MOST_PORTS {
                    program.ports.insert(port);
                }
            }
        }
    }

    /// How a listener came to its port. `range` is where the kernel takes ports from.
    pub fn choice(&self, listener: &Listener, range: PortRange) -> PortChoice {
        let changes = match &listener.owner {
            SocketOwner::Process { name, .. } => self.0.get(name).is_some_and(|one| one.changes),
            SocketOwner::Unknown => false,
        };
        let kernel_might = listener.transport != Transport::Tcp
            || range.contains(listener.port) && (listener.port - range.first()) % 2 == 1;
        match (changes, kernel_might) {
            (true, _) => PortChoice::Changing,
            (false, true) => PortChoice::Unknown,
            (false, false) => PortChoice::Fixed,
        }
    }
}

impl Program {
    /// Whether it is on another port of some protocol than it was, and not on that one any more. Where it
    /// has more ports than are remembered, nothing tells which of them are others.
    fn moved_to(&self, present: &BTreeSet<(u8, u16)>) -> bool {
        if self.ports.len() >= MOST_PORTS {
            return false;
        }
        present.difference(&self.ports).any(|(transport, _)| {
            let mut left = self.ports.difference(present);
            left.any(|(former, _)| former == transport)
        })
    }
}

/// What helps a program whose ports are known to be chosen anew at each start, or within a range
/// of its own.
pub fn known(name: &str) -> Option<&'static str> {
    let name = name.trim_start_matches('-');

    KNOWN
        .iter()
        .find(|(known, _)| match known.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *known,
        })
        .map(|(_, advice)| *advice)
}

/// Names as the kernel shows them, cut to 15 bytes, or how they begin.
const KNOWN: [(&str, &str); 33] = [
    (
        "vsftpd",
        "set pasv_min_port and pasv_max_port in vsftpd.conf",
    ),
    ("proftpd", "set PassivePorts in proftpd.conf"),
    (
        "pure-ftpd*",
        "set its option -p FIRST:LAST (PassivePortRange)",
    ),
    ("ftp", "use passive mode (-p)"),
    ("tnftp", "use passive mode (-p)"),
    ("lftp", "set ftp:passive-mode on"),
    ("ncftp*", "set passive on"),
    (
        "beam.smp",
        "set inet_dist_listen_min and inet_dist_listen_max of Erlang's kernel application",
    ),
    (
        "glusterfsd",
        "set option base-port and option max-port in glusterd.vol",
    ),
    (
        "glusterfs",
        "set option base-port and option max-port in glusterd.vol",
    ),
    ("mpirun", MPI),
    ("mpiexec*", MPI),
    ("orted", MPI),
    ("orterun", MPI),
    ("prte*", MPI),
    ("hydra_pmi_proxy", MPI),
    (
        "ganesha.nfsd",
        "set MNT_Port, NLM_Port and Rquota_Port in NFS_CORE_PARAM of ganesha.conf",
    ),
    ("rpc.mountd", "set port in [mountd] of nfs.conf"),
    ("rpc.statd", "set port in [statd] of nfs.conf"),
    ("rpc.rquotad", "set its option -p PORT"),
    ("ypbind", "set its option -p PORT"),
    ("ypserv", "set its option -p PORT"),
    ("srun", "set SrunPortRange in slurm.conf"),
    ("slurmstepd", "set SrunPortRange in slurm.conf"),
    (
        "qemu-system-*",
        "set migration_port_min and migration_port_max in qemu.conf",
    ),
    (
        "virtqemud",
        "set migration_port_min and migration_port_max in qemu.conf",
    ),
    (
        "libvirtd",
        "set migration_port_min and migration_port_max in qemu.conf",
    ),
    (
        "mosh-server",
        "start mosh with -p FIRST:LAST, or expose 60001-60999/udp",
    ),
    ("turnserver", "set min-port and max-port in turnserver.conf"),
    ("rtpengine", "set port-min and port-max in rtpengine.conf"),
    ("asterisk", "set rtpstart and rtpend in rtp.conf"),
    ("in.tftpd", "set its option --port-range FIRST:LAST"),
    ("minidlnad", "set port in minidlna.conf"),
];

const MPI: &str = "let the other nodes in with --trust, or set btl_tcp_port_min_v4 and \
                   oob_tcp_dynamic_ipv4_ports (Open MPI), or MPIEXEC_PORT_RANGE (MPICH)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::listeners::{
        find,
        tests::{guarded, tcp, udp},
    };

    fn listening(name: &str, ports: &[u16]) -> Vec<Listener> {
        let sockets: Vec<_> = ports
            .iter()
            .map(|port| tcp(&format!("[::]:{port}")))
            .collect();
        let mut found = find(&sockets, &guarded(), &[], &BTreeSet::new());
        for listener in &mut found {
            listener.owner = SocketOwner::Process {
                pid: 7,
                name: name.to_owned(),
            };
        }
        found
    }

    #[test]
    fn how_listeners_came_to_their_ports() {
        let range = PortRange::new(32768, 60999).expect("a range");
        // name, ports at each survey, how the last one was chosen
        let table: [(&str, &[&[u16]], PortChoice); 8] = [
            ("an even port", &[&[40000]], PortChoice::Fixed),
            ("an odd one", &[&[40001]], PortChoice::Unknown),
            ("outside of the range", &[&[2223]], PortChoice::Fixed),
            ("the same again", &[&[40000], &[40000]], PortChoice::Fixed),
            ("another", &[&[40001], &[40003]], PortChoice::Changing),
            (
                "another that is even",
                &[&[40000], &[40002]],
                PortChoice::Changing,
            ),
            ("one more", &[&[40000], &[40000, 40002]], PortChoice::Fixed),
            ("one less", &[&[40000, 40002], &[40002]], PortChoice::Fixed),
        ];
        for (name, surveys, expected) in table {
            let mut programs = ListeningPrograms::default();
            let mut last = None;
            for ports in surveys {
                let found = listening("server", ports);
                programs.note(&found);
                programs.note(&listening("another", &[50000]));
                last = found.into_iter().last();
            }
            let last = last.expect("a listener");
            assert_eq!(programs.choice(&last, range), expected, "{name}");
        }
        let client = find(&[udp("[::]:40000")], &guarded(), &[], &BTreeSet::new()).remove(0);
        assert_eq!(
            ListeningPrograms::default().choice(&client, range),
            PortChoice::Unknown
        );
    }

    #[test]
    fn a_program_with_more_ports_than_are_remembered_does_not_change_them() {
        let range = PortRange::new(32768, 60999).expect("a range");
        let ports: Vec<u16> = (40_000..40_100).collect();
        let mut programs = ListeningPrograms::default();
        programs.note(&listening("server", &ports));
        let fewer = listening("server", &ports[1..]);
        programs.note(&fewer);
        programs.note(&listening("server", &ports));
        for listener in &fewer {
            let choice = programs.choice(listener, range);
            assert_ne!(choice, PortChoice::Changing, "{}", listener.port);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut programs = ListeningPrograms::default();
        for number in 0..2 * MOST_PROGRAMS {
            programs.note(&listening(&format!("p{number}"), &[40000]));
        }
        for port in (40001..60999).step_by(2) {
            programs.note(&listening("p0", &[port]));
        }
        assert_eq!(programs.0.len(), MOST_PROGRAMS);
        assert!(programs.0.values().all(|one| one.ports.len() <= MOST_PORTS));
    }

    #[test]
    fn known_names() {
        assert!(known("vsftpd").is_some_and(|advice| advice.contains("pasv_min_port")));
        assert!(known("qemu-system-x86").is_some());
        assert!(known("sshd").is_none() && known("ftpd").is_none() && known("").is_none());
        assert!(KNOWN.iter().all(|(name, _)| name.len() <= 15));
    }
}
