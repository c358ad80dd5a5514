//! The entry of libFuzzer. `cargo xtask fuzz --coverage TARGET` names the target in the
//! environment: one program has them all, because each takes minutes to build.
#![no_main]

use std::{env, sync::LazyLock};

use guard_tests::differential::corpus;
use guard_userspace::fuzz_targets;
use libfuzzer_sys::{Corpus, fuzz_target};

/// Names the target.
const TARGET: &str = "PORTGUARD_FUZZ_TARGET";

/// Stands for no target: all are listed.
const LIST: &str = "list";

static CHOSEN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = env::var(TARGET).unwrap_or_default();
    let targets = fuzz_targets::TARGETS.iter().chain([&corpus::TARGET]);
    let chosen = targets.clone().find(|(known, _)| *known == name);
    let Some((_, target)) = chosen else {
        let known: Vec<&str> = targets.map(|(known, _)| *known).collect();
        if name == LIST {
            println!("{}", known.join("\n"));
            std::process::exit(0);
        }
        eprintln!("{TARGET} is {name:?}, and none of {}", known.join(" "));
        std::process::exit(2);
    };
    *target
});

fuzz_target!(
    init: {
        // Later, libFuzzer takes an exit for a crash.
        LazyLock::force(&CHOSEN);
    },
    |bytes: &[u8]| -> Corpus {
        CHOSEN(bytes);
        Corpus::Keep
    }
);
