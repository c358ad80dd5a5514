//! What nftables and iptables do with ports: which are translated to somewhere else, and which
//! ranges are let in.

use std::{
    io::{self, Read},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::host::range::{PortRange, parse_port};

/// How long a tool may take to list its rules.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest listing that is read, in bytes.
const LONGEST: u64 = 64 * 1024 * 1024;

/// What a rule does with ports of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// What it does.
    pub(super) action: RuleAction,
    /// The ports.
    pub(super) ports: PortRange,
    /// The tool and the chain it is in, such as `nft ip nat prerouting`.
    pub(super) place: String,
}

/// What a rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuleAction {
    /// Sends it to another address or port.
    Translate,
    /// Lets it in.
    Accept,
}

/// What the tools of firewalls say.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Firewalls {
    /// The rules that could be read.
    pub(super) rules: Vec<Rule>,
    /// Tools that are there and have told nothing that can be read.
    pub(super) unread: Vec<&'static str>,
}

/// Asks all tools that are there.
pub(super) fn ask() -> Firewalls {
    let nft =
        output("nft", &["-j", "list", "ruleset"]).map(|text| text.and_then(|text| nftables(&text)));
    let legacy = ["iptables-save", "ip6tables-save"].map(|tool| {
        let said = output(tool, &[]).map(|text| text.map(|text| iptables(tool, &text)));
        (tool, said)
    });
    let mut firewalls = Firewalls::default();
    for (tool, said) in [("nft", nft)].into_iter().chain(legacy) {
        match said {
            None => {}
            Some(Some(rules)) => firewalls.rules.extend(rules),
            Some(None) => firewalls.unread.push(tool),
        }
    }

    firewalls
}

/// What a tool prints, if it is there: nothing where it fails or takes too long.
fn output(tool: &str, words: &[&str]) -> Option<Option<String>> {
    let child = Command::new(tool)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();

    match child {
        Ok(child) => Some(listing(child)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(None),
    }
}

fn listing(mut child: Child) -> Option<String> {
    let out = child.stdout.take()?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        out.take(LONGEST).read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            _ => {
                // It has nothing to lose.
                let _ = child.kill();
                break child.wait().ok()?;
            }
        }
    };
    let text = reader.join().ok()?.ok()?;

    status.success().then_some(text)
}

/// Reads what `nft -j list ruleset` prints, if that is JSON; see libnftables-json(5).
fn nftables(text: &str) -> Option<Vec<Rule>> {
    let ruleset: Value = serde_json::from_str(text).ok()?;
    let objects = ruleset["nftables"].as_array().cloned().unwrap_or_default();
    let mut rules = Vec::new();
    for rule in objects.iter().filter_map(|object| object.get("rule")) {
        let statements = rule["expr"].as_array().cloned().unwrap_or_default();
        let Some(action) = statements.iter().find_map(action) else {
            continue;
        };
        let word = |key: &str| rule[key].as_str().unwrap_or("?").to_owned();
        let place = format!("nft {} {} {}", word("family"), word("table"), word("chain"));
        for ports in statements.iter().flat_map(destination_ports) {
            rules.push(Rule {
                action,
                ports,
                place: place.clone(),
            });
        }
    }

    Some(rules)
}

fn action(statement: &Value) -> Option<RuleAction> {
    let has = |key: &str| statement.get(key).is_some();
    if has("dnat") || has("redirect") {
        Some(RuleAction::Translate)
    } else if has("accept") {
        Some(RuleAction::Accept)
    } else {
        None
    }
}

/// The ports that a statement compares the destination port with.
fn destination_ports(statement: &Value) -> Vec<PortRange> {
    let compared = &statement["match"];
    let is_port = compared["left"]["payload"]["field"] == "dport";
    if !is_port || !matches!(compared["op"].as_str(), Some("==" | "in")) {
        return Vec::new();
    }
    let right = &compared["right"];
    match right["set"].as_array() {
        Some(elements) => elements.iter().filter_map(ports).collect(),
        None => ports(right).into_iter().collect(),
    }
}

fn ports(value: &Value) -> Option<PortRange> {
    let port = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    if let Some(port) = port(value) {
        return PortRange::new(port, port).ok();
    }
    let range = value["range"].as_array()?;

    PortRange::new(port(range.first()?)?, port(range.get(1)?)?).ok()
}

/// Reads what `iptables-save` prints.
fn iptables(tool: &str, text: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut table = "?";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("-A") {
            continue;
        }
        let chain = words.next().unwrap_or("?");
        let (mut listed, mut action, mut last) = (Vec::new(), None, "");
        for word in words {
            match last {
                // The ports of a negated match are the ones that are not meant.
                "--dport" | "--dports" => {
                    listed.extend(word.split(',').filter_map(parse_range));
                }
                "-j" => {
                    action = match word {
                        "DNAT" | "REDIRECT" => Some(RuleAction::Translate),
                        "ACCEPT" => Some(RuleAction::Accept),
                        _ => None,
                    };
                }
                _ => {}
            }
            if last == "!" && word.starts_with("--dport") {
                last = "";
            } else {
                last = word;
            }
        }
        let Some(action) = action else { continue };
        rules.extend(listed.into_iter().map(|ports| Rule {
            action,
            ports,
            place: format!("{} {table} {chain}", tool.trim_end_matches("-save")),
        }));
    }

    rules
}

/// A port or a range as iptables writes it, `FIRST:LAST`.
fn parse_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once(':').unwrap_or((text, text));

    PortRange::new(parse_port(first).ok()?, parse_port(last).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rules: &[Rule]) -> Vec<(RuleAction, u16, u16, &str)> {
        rules
            .iter()
            .map(|rule| {
                let ports = rule.ports;
                (
                    rule.action,
                    ports.first(),
                    ports.last(),
                    rule.place.as_str(),
                )
            })
            .collect()
    }

    #[test]
    fn rules_of_nftables() {
        let text = r#"{"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "nat", "name": "pre", "hook": "prerouting"}},
            {"rule": {"family": "ip", "table": "nat", "chain": "pre", "handle": 4, "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 40080}},
                {"dnat": {"addr": "172.17.0.2", "port": 80}}]}},
            {"rule": {"family": "inet", "table": "f", "chain": "in", "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}},
                           "right": {"set": [53, {"range": [33000, 34000]}]}}},
                {"accept": null}]}},
            {"rule": {"family": "inet", "table": "f", "chain": "in", "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "sport"}}, "right": 40081}},
                {"accept": null}]}},
            {"rule": {"family": "inet", "table": "f", "chain": "in", "expr": [
                {"match": {"op": "!=", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 40082}},
                {"accept": null}]}},
            {"rule": {"family": "inet", "table": "f", "chain": "in", "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 40083}},
                {"drop": null}]}}
        ]}"#;
        assert_eq!(
            found(&nftables(text).expect("is JSON")),
            [
                (RuleAction::Translate, 40_080, 40_080, "nft ip nat pre"),
                (RuleAction::Accept, 53, 53, "nft inet f in"),
                (RuleAction::Accept, 33_000, 34_000, "nft inet f in"),
            ]
        );
    }

    #[test]
    fn rules_of_iptables() {
        let text = "*nat\n:PREROUTING ACCEPT [0:0]\n\
            -A DOCKER ! -i docker0 -p tcp -m tcp --dport 40080 -j DNAT --to-destination 172.17.0.2:80\n\
            -A PREROUTING -p udp -m udp --dport 40100:40110 -j REDIRECT --to-ports 53\nCOMMIT\n\
            *filter\n-A INPUT -p tcp -m multiport --dports 22,32768:60999 -j ACCEPT\n\
            -A INPUT -p tcp -m tcp ! --dport 41000 -j ACCEPT\n\
            -A INPUT -p tcp -m tcp --sport 41000 -j ACCEPT\n\
            -A INPUT -p tcp -m tcp --dport 41001 -j DROP\nCOMMIT\n";
        assert_eq!(
            found(&iptables("iptables-save", text)),
            [
                (RuleAction::Translate, 40_080, 40_080, "iptables nat DOCKER"),
                (
                    RuleAction::Translate,
                    40_100,
                    40_110,
                    "iptables nat PREROUTING"
                ),
                (RuleAction::Accept, 22, 22, "iptables filter INPUT"),
                (RuleAction::Accept, 32_768, 60_999, "iptables filter INPUT"),
            ]
        );
    }

    #[test]
    fn what_is_no_ruleset_has_no_rules() {
        let rulesets = [
            "{}",
            "[]",
            r#"{"nftables": 5}"#,
            r#"{"nftables": [{"rule": 5}]}"#,
        ];
        let no_json = ["", "x", r#"{"nftables": ["#];
        for text in rulesets {
            assert_eq!(nftables(text), Some(Vec::new()), "{text}");
        }
        for text in no_json {
            assert_eq!(nftables(text), None, "{text}");
        }
        for text in rulesets.into_iter().chain(no_json) {
            assert_eq!(iptables("iptables-save", text), [], "{text}");
        }
    }

    #[test]
    fn a_tool_that_fails_is_told_from_one_that_is_missing() {
        assert_eq!(output("portguard-no-such-tool", &[]), None);
        assert_eq!(output("false", &[]), Some(None));
        assert_eq!(output("echo", &["x"]), Some(Some("x\n".to_owned())));
        // More than is read, without end.
        assert_eq!(output("cat", &["/dev/zero"]), Some(None));
    }
}
