//! A host with containers: a bridge, a masquerade, and three published ports.

use anyhow::Result;
use guard_tests::netns::Namespace;

use super::firewall;

/// Makes a host forward as one with containers does.
pub fn prepare(host: &Namespace) -> Result<()> {
    for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        host.sysctl(setting, "1")?;
    }
    for words in [
        "link add containers type bridge",
        "address add 172.31.0.1/16 dev containers",
        "link add container type veth peer name inside",
        "link set container master containers up",
        "link set inside up",
        "link set containers up",
    ] {
        firewall::succeed(host.command("ip").args(words.split(' ')))?;
    }

    firewall::nft(
        host,
        "table ip containers {
            chain come {
                type nat hook prerouting priority dstnat; policy accept;
                fib daddr type local tcp dport { 8080, 8443 } dnat to 172.31.0.2
                fib daddr type local udp dport 5353 dnat to 172.31.0.2
            }
            chain leave {
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr 172.31.0.0/16 oifname != \"containers\" masquerade
            }
        }",
    )
}
