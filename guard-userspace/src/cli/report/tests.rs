use super::*;
use crate::{
    api::{
        control,
        http::test_guard::{Fake, observation},
    },
    guard::attachment::Chain,
};

#[test]
fn snapshot_of_a_status() {
    let status = StatusJson::from(&observation(Mode::Enforce));

    assert_eq!(
        StatusText(&status).to_string(),
        "\
guarding eth0 (native XDP, TCX egress), ports 32768-60999; not attached: eth1
ALARM     eth1: its XDP program was taken off
traffic   eth0: received seen, sent none yet
traffic   eth1: sent NOT SEEN
before us eth0: TCX program x (id 7)
after us  eth0: u32 filter, priority 10, handle 800::800
reserved  40000-40010 50000
exposed   42222/tcp
trust     10.0.0.0/8
flows     16 of 262144

PACKETS RECEIVED
known_flow        77
no_flow           43
trusted            1

BLOCKED LISTENERS   PROCESS             TO EXPOSE
tcp port 45000      dbus?[2J (pid 812)  --expose 45000/tcp
udplite port 45001  unknown             --expose 45001/udp
"
    );
}

#[test]
fn snapshot_of_a_quiet_monitor() {
    let mut quiet = observation(Mode::Monitor);
    quiet.interfaces[0].egress = None;
    quiet.interfaces[1].egress = None;
    quiet.reserved.clear();
    quiet.exposed.clear();
    quiet.trusted.clear();
    quiet.listeners.clear();
    quiet.alarms.clear();
    quiet.interfaces[0].chain = Chain::default();
    quiet.frames.clear();
    quiet.advice = Some("full; give more".to_owned());
    quiet.metrics_missing = Some("taken; stop it".to_owned());
    quiet.failed_sweeps = 3;

    assert_eq!(
        StatusText(&StatusJson::from(&quiet)).to_string(),
        "\
monitoring eth0 (native XDP, egress not recorded), ports 32768-60999; not attached: eth1
traffic   eth0: received seen
mode      monitor: what would be dropped passes
flows     16 of 262144
sweeps    3 failed
metrics   missing: taken; stop it
advice    full; give more
packets   none received yet
"
    );
}

/// Egress alone drops nothing.
#[test]
fn an_interface_without_xdp_is_not_guarded() {
    let mut robbed = observation(Mode::Enforce);
    robbed.interfaces[0].xdp = None;
    robbed.interfaces[1].guarded = false;
    let status = StatusJson::from(&robbed);

    assert_eq!(
        Headline(&status).to_string(),
        "guarding eth1 (clsact egress only), ports 32768-60999; not attached: eth0"
    );
}

#[test]
fn prints_what_a_daemon_says() {
    let server = control::tests::Server::start(Fake::default());
    for json in [false, true] {
        status(&server.socket, json, None).expect("answers");
    }
}
