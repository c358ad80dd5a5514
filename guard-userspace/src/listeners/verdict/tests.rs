use std::{net::SocketAddr, slice};

use super::*;
use crate::{
    failure::Exit,
    listeners::{
        find,
        tests::{guarded, tcp, udp},
    },
};

#[test]
fn what_is_done_about_them() {
    use ListenersPolicy::{Auto, Expose, Refuse, Warn};
    use Mode::{Enforce, Monitor};
    use Moment::{Growth, Start, Watch};

    let idle = find(&[tcp("[::]:2222")], &guarded(), &[]).remove(0);
    let serving = Listener {
        serves: Some(SocketAddr::from(([198, 51, 100, 1], 5000))),
        ..idle.clone()
    };
    let client = find(&[udp("[::]:2222")], &guarded(), &[]).remove(0);
    let tunnel = Listener {
        owner: Owner::Kernel,
        ..client.clone()
    };
    // name                        policy  mode     moment  listener  outcome
    let table = [
        ("idle, auto", Auto, Enforce, Start, &idle, "blocked"),
        ("idle, warn", Warn, Enforce, Start, &idle, "blocked"),
        ("idle, refuse", Refuse, Enforce, Start, &idle, "refused"),
        ("idle, expose", Expose, Enforce, Start, &idle, "exposed"),
        (
            "idle, refuse, at run time",
            Refuse,
            Enforce,
            Growth,
            &idle,
            "blocked",
        ),
        ("serving, auto", Auto, Enforce, Start, &serving, "refused"),
        ("serving, warn", Warn, Enforce, Start, &serving, "blocked"),
        (
            "serving, refuse",
            Refuse,
            Enforce,
            Start,
            &serving,
            "refused",
        ),
        (
            "serving, monitor mode",
            Auto,
            Monitor,
            Start,
            &serving,
            "blocked",
        ),
        (
            "refused, monitor mode",
            Refuse,
            Monitor,
            Start,
            &idle,
            "blocked",
        ),
        (
            "serving, auto, range grows",
            Auto,
            Enforce,
            Growth,
            &serving,
            "exposed",
        ),
        (
            "serving, refuse, range grows",
            Refuse,
            Enforce,
            Growth,
            &serving,
            "exposed",
        ),
        (
            "serving, warn, range grows",
            Warn,
            Enforce,
            Growth,
            &serving,
            "blocked",
        ),
        (
            "serving, auto, long guarded",
            Auto,
            Enforce,
            Watch,
            &serving,
            "blocked",
        ),
        ("appears, expose", Expose, Enforce, Watch, &idle, "exposed"),
        ("UDP, auto", Auto, Enforce, Start, &client, "blocked"),
        ("UDP, refuse", Refuse, Enforce, Start, &client, "blocked"),
        ("UDP, expose", Expose, Enforce, Start, &client, "blocked"),
        ("kernel, warn", Warn, Enforce, Start, &tunnel, "exposed"),
        ("kernel, refuse", Refuse, Enforce, Watch, &tunnel, "exposed"),
    ];
    for (name, policy, mode, moment, listener, expected) in table {
        let outcome = match judge(policy, mode, moment, slice::from_ref(listener)) {
            Err(failure) => {
                assert_eq!(failure.code, Exit::BadConfiguration, "{name}");
                "refused"
            }
            Ok(verdict) => {
                assert_eq!(verdict.warnings.len(), 1, "{name}");
                assert_eq!(verdict.exposures.len() + verdict.blocked.len(), 1, "{name}");
                if verdict.blocked.is_empty() {
                    "exposed"
                } else {
                    "blocked"
                }
            }
        };
        assert_eq!(outcome, expected, "{name}");
    }
}

#[test]
fn what_is_said_about_them() {
    let process = |name: &str| Owner::Process {
        pid: 812,
        name: name.to_owned(),
    };
    let mut listeners = find(
        &[
            tcp("[::]:2222"),
            udp("[::]:5000"),
            udp("[::]:5001"),
            udp("[::]:5002"),
            udp("[::]:51820"),
        ],
        &guarded(),
        &[],
    );
    for (listener, owner) in listeners.iter_mut().zip([
        process("sshd"),
        process("unbound"),
        process("unbound"),
        process("unbound"),
        Owner::Kernel,
    ]) {
        listener.owner = owner;
    }
    let lines = |policy| {
        judge(policy, Mode::Enforce, Moment::Start, &listeners).map(|verdict| {
            verdict
                .warnings
                .into_iter()
                .map(|warning| warning.text)
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(
        lines(ListenersPolicy::Auto).expect("no refusal"),
        [
            "udp port 51820 (the kernel itself): left open to strangers, WireGuard, VXLAN or the like needs it; --expose 51820/udp says so for good",
            "tcp port 2222 (sshd, pid 812): listens in the guarded range, strangers cannot reach it; --expose 2222/tcp lets them",
            "udp port 5000 (unbound, pid 812) and 2 more: open in the guarded range; if it is a server and no client, strangers cannot reach it; --expose 5000/udp lets them",
        ]
    );
    listeners[0].serves = Some(SocketAddr::from(([198, 51, 100, 1], 5000)));
    let failure = judge(
        ListenersPolicy::Auto,
        Mode::Enforce,
        Moment::Start,
        &listeners,
    )
    .expect_err("refused");
    assert_eq!(
        failure.to_string(),
        "tcp port 2222 (sshd, pid 812): serves 198.51.100.1:5000 now and would be cut off from its like; --expose 2222/tcp leaves it open, --listeners warn guards it all the same"
    );
}
