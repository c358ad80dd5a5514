//! ICMP: errors about this host's own packets arrive, forged ones do not (rows I01 to I09).

mod black_hole;
mod errors;
mod information;
mod kernel;
mod sink;
mod traceroute;

use guard_common::outcome::Family;
use guard_tests::netns::Namespace;

const MODES: [&str; 2] = ["native", "generic"];
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// What a command inside `host` prints, whether it succeeds or not.
fn output(host: &Namespace, words: &str) -> std::io::Result<(bool, String)> {
    let mut words = words.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = host.command(program).args(words).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((output.status.success(), text))
}
