use std::{collections::BTreeSet, net::SocketAddr, slice, sync::LazyLock};

use super::*;
use crate::{
    base::failure::Exit,
    guard::listeners::{
        ListeningPrograms, find,
        tests::{guarded, tcp, udp},
    },
    host::range::PortRange,
};

fn terms(policy: ListenersPolicy, mode: Mode) -> ListenerTerms<'static> {
    static PROGRAMS: LazyLock<ListeningPrograms> = LazyLock::new(ListeningPrograms::default);

    ListenerTerms {
        policy,
        mode,
        range: PortRange::new(1024, 65535).expect("a range"),
        programs: &PROGRAMS,
    }
}

#[test]
fn what_is_done_about_them() {
    use ListenersPolicy::{Auto, Expose, Refuse, Warn};
    use Mode::{Enforce, Monitor};
    use Moment::{Growth, Start, Watch};

    let idle = find(&[tcp("[::]:2222")], &guarded(), &[], &BTreeSet::new()).remove(0);
    let serving = Listener {
        serves: Some(SocketAddr::from(([198, 51, 100, 1], 5000))),
        ..idle.clone()
    };
    let client = find(&[udp("[::]:2222")], &guarded(), &[], &BTreeSet::new()).remove(0);
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
            "kept",
        ),
        (
            "serving, refuse, range grows",
            Refuse,
            Enforce,
            Growth,
            &serving,
            "kept",
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
    ];
    for (name, policy, mode, moment, listener, expected) in table {
        let outcome = match decide(terms(policy, mode), moment, slice::from_ref(listener)) {
            Err(failure) => {
                assert_eq!(failure.code, Exit::BadConfiguration, "{name}");
                "refused"
            }
            Ok(verdict) => {
                assert_eq!(verdict.warnings.len(), 1, "{name}");
                match (
                    verdict.blocked.len(),
                    verdict.exposures.len(),
                    verdict.kept.len(),
                ) {
                    (1, 0, 0) => "blocked",
                    (0, 1, 0) => "exposed",
                    (0, 0, 1) => "kept",
                    other => panic!("{name}: {other:?}"),
                }
            }
        };
        assert_eq!(outcome, expected, "{name}");
    }
}
