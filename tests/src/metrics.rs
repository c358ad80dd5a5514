//! What the guard counts, as it tells the world.

use std::{
    collections::BTreeMap,
    fmt,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome;

use crate::netns::Namespace;

/// Where it is served.
pub const ADDRESS: &str = "127.0.0.1:9750";

/// One line of a scrape.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// The name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The value of a label, or nothing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The sum of the samples of this name with these labels, or 0.
pub fn sum(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> u64 {
    samples
        .iter()
        .filter(|sample| sample.name == name)
        .filter(|sample| {
            labels
                .iter()
                .all(|(key, value)| sample.label(key) == *value)
        })
        .map(|sample| sample.value as u64)
        .sum()
}

/// Frames by direction and reason.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Packets(BTreeMap<(String, String), u64>);

impl Packets {
    /// Those of a scrape.
    pub fn new(samples: &[Sample]) -> Self {
        let mut packets = Self::default();
        for sample in samples {
            if sample.name == "portguard_packets_total" {
                let key = (sample.label("direction"), sample.label("reason"));
                let key = (key.0.to_owned(), key.1.to_owned());
                *packets.0.entry(key).or_insert(0) += sample.value as u64;
            }
        }
        packets
    }

    /// How often this happened.
    pub fn of(&self, outcome: Outcome) -> u64 {
        let key = (outcome.direction().label(), outcome.reason());
        let key = (key.0.to_owned(), key.1.to_owned());
        self.0.get(&key).copied().unwrap_or(0)
    }

    /// What happened since.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let moved = |(key, count): (&(String, String), &u64)| {
            let earlier = before.0.get(key).copied().unwrap_or(0);
            let moved = count.checked_sub(earlier).expect("counters only go up");
            (moved > 0).then(|| (key.clone(), moved))
        };
        Self(self.0.iter().filter_map(moved).collect())
    }
}

impl fmt::Display for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((direction, reason), count) in &self.0 {
            write!(f, " {direction}/{reason} {count}")?;
        }
        Ok(())
    }
}

/// Reads `path` from the guard inside `host`: the status code and the body.
pub fn get(host: &Namespace, path: &str) -> Result<(u16, String)> {
    ask(connect(host)?, path)
}

/// A connection to the guard inside `host`, which serves one request.
pub fn connect(host: &Namespace) -> Result<TcpStream> {
    host.run(|| TcpStream::connect(ADDRESS))
        .with_context(|| format!("connect to {ADDRESS}"))
}

fn ask(mut stream: TcpStream, path: &str) -> Result<(u16, String)> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;

    let (head, body) = response
        .split_once("\r\n\r\n")
        .context("a response without a body")?;
    let mut words = head.split_whitespace();
    let code = words.nth(1).context("a response without a status")?;
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunked(body)?
    } else {
        body.to_owned()
    };
    Ok((code.parse()?, body))
}

fn unchunked(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = body
            .split_once("\r\n")
            .context("a chunk without a length")?;
        let length = usize::from_str_radix(length, 16)?;
        if length == 0 {
            return Ok(whole);
        }
        whole += rest.get(..length).context("a chunk that is cut")?;
        body = rest.get(length + 2..).context("a chunk that is cut")?;
    }
}

/// Every sample of the guard inside `host`.
pub fn scrape(host: &Namespace) -> Result<Vec<Sample>> {
    scrape_by(connect(host)?)
}

/// As [`scrape`], over a connection that was made before.
pub fn scrape_by(connection: TcpStream) -> Result<Vec<Sample>> {
    let (code, body) = ask(connection, "/metrics")?;
    ensure!(code == 200, "/metrics answered {code}: {body}");
    body.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| sample(line).with_context(|| format!("the line {line:?}")))
        .collect()
}

/// `name{label="value",..} number`. No label's value holds a comma or a quote.
fn sample(line: &str) -> Result<Sample> {
    let (series, value) = line.rsplit_once(' ').context("no value")?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').context("no closing brace")?),
        None => (series, ""),
    };
    let labels = labels
        .split(',')
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (name, value) = label.split_once('=').context("a label without a value")?;
            Ok((name.to_owned(), value.trim_matches('"').to_owned()))
        })
        .collect::<Result<_>>()?;
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: value.parse()?,
    })
}
