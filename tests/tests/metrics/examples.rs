//! The queries and alerts that `docs/metrics.md` shows.

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));

/// Every example query: each line of a `promql` block that is no comment.
pub fn queries() -> Vec<&'static str> {
    blocks("promql")
        .into_iter()
        .flat_map(str::lines)
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// Every file of rules: each `yaml` block.
pub fn rules() -> Vec<&'static str> {
    blocks("yaml")
}

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let mut blocks = Vec::new();
    let mut rest = DOCUMENT;
    let fence = format!("```{language}\n");
    while let Some((_, block)) = rest.split_once(&fence) {
        let (block, behind) = block.split_once("```").expect("a block ends");
        blocks.push(block);
        rest = behind;
    }
    blocks
}

/// The series that an expression is about, without what is done with them.
pub fn selectors(expression: &str) -> Vec<&str> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = expression.as_bytes();
    let mut selectors = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'"' {
            let closing = expression[at + 1..].find('"').expect("a string ends");
            at += closing + 2;
            continue;
        }
        let length = bytes[at..]
            .iter()
            .take_while(|byte| is_name(**byte))
            .count();
        let end = at + length;
        let labelled = bytes.get(end) == Some(&b'{');
        if length > 0 && (labelled || expression[at..end].starts_with("portguard_")) {
            let labels = expression[end..].find('}').filter(|_| labelled);
            let end = labels.map_or(end, |labels| end + labels + 1);
            selectors.push(&expression[at..end]);
            at = end;
        } else {
            at = end.max(at + 1);
        }
    }
    selectors
}

/// Dashboards and alerts are of many hosts, and have to say of which.
#[test]
fn no_expression_loses_the_host() {
    let rules = rules().into_iter().flat_map(str::lines);
    let alerts = rules.filter_map(|line| line.trim().strip_prefix("expr: "));
    for expression in queries().into_iter().chain(alerts) {
        let mut words = expression.split(|letter: char| !letter.is_ascii_alphabetic());
        let aggregated = words.any(|word| ["sum", "max", "min", "avg", "count"].contains(&word));
        let kept = expression.matches("by (instance").count();
        let all = ["sum", "max", "min", "avg", "count"]
            .map(|word| expression.matches(&format!("{word} by (")).count())
            .iter()
            .sum::<usize>();
        assert!(!aggregated || (kept > 0 && kept == all), "{expression}");
    }
}

#[test]
fn selectors_are_found_wherever_they_stand() {
    let expression = r#"sum(rate(portguard_a{x="y",z="1"}[5m])) / portguard_b > up{job="p"}"#;
    let found = selectors(expression);
    assert_eq!(
        found,
        [
            r#"portguard_a{x="y",z="1"}"#,
            "portguard_b",
            r#"up{job="p"}"#
        ]
    );
}
