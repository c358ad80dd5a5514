use guard_common::ports::class::PORTS;

use super::*;
use crate::{
    config::ConfigLayer,
    host::range::{LocalPorts, PortRange},
};

const HERTZ: u32 = 250;
const SECRET: u64 = 0x9e37_79b9_7f4a_7c15;

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).expect("a range")
}

fn ports(first: u16, last: u16, exposed: &[(Transport, u16)]) -> GuardedPorts {
    let local = LocalPorts {
        range: range(first, last),
        reserved: Vec::new(),
    };
    let exposed = exposed.iter();

    GuardedPorts::new(
        &local,
        exposed.map(|&(transport, port)| (transport, range(port, port))),
    )
}

fn policy() -> Policy {
    let flags = ConfigLayer {
        iface: Some(vec!["none".to_owned()]),
        ..ConfigLayer::default()
    };
    let settings = Settings::load(&flags, None).expect("settings");

    Policy::of(
        &settings,
        &ports(32_768, 60_999, &[]),
        &HostFacts::default(),
        HERTZ,
    )
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn published(policy: &Policy) -> (Box<Page>, InForce) {
    policy.page(policy.timeouts, SECRET, &PortBitmap::default())
}

#[test]
fn a_plain_host_has_nothing_to_ask_before_a_drop() {
    let (page, in_force) = published(&policy());
    assert_eq!(in_force.range(), Some((32_768, 60_999)));
    assert_eq!(in_force.before_a_drop(), 0);
    assert!(in_force.has(InForce::RESCUE));
    assert_eq!(page.special, [0; PORTS / 32]);
    assert_eq!(page.deadline, 0);
}

#[test]
fn each_wish_is_one_question() {
    let mut exposed = policy();
    exposed.ports = ports(32_768, 60_999, &[(Transport::Udp, 40_000)]);
    let mut kernel = policy();
    kernel.ports = kernel
        .ports
        .but_for_kernel([(40_000, IpAddr::from([0; 4]))]);
    let mut trusting = policy();
    trusting.trusted = [net("10.0.0.0/8")].into();
    let mut forwarding = policy();
    forwarding.host.forwards = true;
    let mut monitoring = policy();
    monitoring.monitor = true;
    for (policy, flags) in [
        (exposed, InForce::SPECIAL),
        (kernel, InForce::SPECIAL),
        (trusting, InForce::SOURCES),
        (forwarding, InForce::FORWARDS),
        (monitoring, InForce::MONITOR | InForce::SPECIAL),
    ] {
        let (_, in_force) = published(&policy);
        assert_eq!(in_force.before_a_drop(), flags, "{policy:?}");
    }
}

/// What is not plainly guarded leaves the fast path, and nothing else does.
#[test]
fn special_ports_are_those_that_are_not_plainly_guarded() {
    let mut policy = policy();
    policy.ports = ports(
        32_768,
        60_999,
        &[(Transport::Udp, 40_000), (Transport::Tcp, 50_000)],
    )
    .but_for_kernel([(45_000, IpAddr::from([0; 4]))]);
    let (page, _) = published(&policy);
    let special = |port: usize| page.special[port / 32] >> (port % 32) & 1 != 0;
    let found: Vec<_> = (0..PORTS).filter(|port| special(*port)).collect();
    assert_eq!(found, [40_000, 45_000, 50_000]);
}

/// Only monitor mode asks whether there is a socket.
#[test]
fn sockets_count_in_monitor_mode() {
    let sockets: PortBitmap = [40_001].into_iter().collect();
    let mut policy = policy();
    for monitor in [false, true] {
        policy.monitor = monitor;
        let (page, _) = policy.page(policy.timeouts, SECRET, &sockets);
        let special = page.special[40_001 / 32] >> (40_001 % 32) & 1 != 0;
        assert_eq!(special, monitor);
    }
}

#[test]
fn own_addresses_are_on_the_page() {
    let mut policy = policy();
    policy.host.forwards = true;
    for last in 1..=12 {
        policy.host.own.insert(IpAddr::from([172, 17, last, 1]));
        policy
            .host
            .own
            .insert(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, last.into(), 1]));
    }
    let (page, _) = published(&policy);
    for address in &policy.host.own {
        let listed = match address {
            IpAddr::V4(address) => page.own.contain(V4::from(address.octets())),
            IpAddr::V6(address) => page.own.contain(V6::from(address.octets())),
        };
        assert!(listed, "{address}");
    }
    assert!(!page.own.contain(V4::from([172, 17, 13, 1])));
}

#[test]
fn the_first_policy_is_published_without_learning() {
    let first = policy();
    let plan = Policy::plan(None, &first);
    assert_eq!(plan.learn, Learn::Nothing);
    assert!(plan.flips && plan.invalidates && !plan.lists_sockets);
}

#[test]
fn what_stays_the_same_is_not_published() {
    let plan = Policy::plan(Some(&policy()), &policy());
    assert!(!plan.flips && !plan.invalidates);
    assert_eq!(plan.learn, Learn::Nothing);
}

/// Ports that become guarded are learned of; those that cease to be are not.
#[test]
fn a_range_that_grows_is_learned_first() {
    let (small, mut large) = (policy(), policy());
    large.ports = ports(30_000, 60_999, &[]);
    let added = large.ports.without(&small.ports);
    assert!(added.is_some());
    let plan = Policy::plan(Some(&small), &large);
    assert_eq!(plan.learn, Learn::Ports(added.expect("as above")));
    assert!(plan.flips && plan.invalidates);

    let plan = Policy::plan(Some(&large), &small);
    assert_eq!(plan.learn, Learn::Nothing);
    assert!(plan.flips && plan.invalidates);
}

#[test]
fn another_udp_filter_looks_every_flow_up_anew() {
    let mut other = policy();
    other.any_remote_port = true;
    for (old, new) in [(&policy(), &other), (&other, &policy())] {
        let plan = Policy::plan(Some(old), new);
        assert_eq!(plan.learn, Learn::All);
        assert!(plan.flips && plan.invalidates);
    }
}

/// Nothing that is trusted under either policy is missing while one of them may be in force.
#[test]
fn both_policies_are_in_the_maps_until_the_flip() {
    let (mut old, mut new) = (policy(), policy());
    old.trusted = [net("10.0.0.0/8")].into();
    new.trusted = [net("192.0.2.0/24")].into();
    old.ports = old.ports.but_for_kernel([(40_000, IpAddr::from([0; 4]))]);
    new.ports = new.ports.but_for_kernel([(40_001, IpAddr::from([0; 4]))]);
    let plan = Policy::plan(Some(&old), &new);
    assert_eq!(
        plan.trusted,
        [net("10.0.0.0/8"), net("192.0.2.0/24")].into()
    );
    assert_eq!(plan.kernel.len(), 2);
}

#[test]
fn whom_the_administrator_trusts_makes_no_flow_known() {
    let (mut trusting, mut forwarding) = (policy(), policy());
    trusting.trusted = [net("10.0.0.0/8")].into();
    forwarding.host.forwards = true;
    for new in [trusting, forwarding] {
        let plan = Policy::plan(Some(&policy()), &new);
        assert!(plan.flips && !plan.invalidates, "{new:?}");
        assert_eq!(plan.learn, Learn::Nothing);
    }
}

#[test]
fn monitor_mode_begins_with_a_list_of_sockets() {
    let mut monitoring = policy();
    monitoring.monitor = true;
    assert!(Policy::plan(Some(&policy()), &monitoring).lists_sockets);
    assert!(!Policy::plan(Some(&monitoring), &policy()).lists_sockets);
    assert!(Policy::plan(None, &monitoring).lists_sockets);
}
