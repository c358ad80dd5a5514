//! A Prometheus server that scrapes the guard.

use std::{
    fs::{self, File},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_tests::{metrics, netns::Namespace, scratch::Scratch};
use serde_json::Value;

/// Where it listens, inside the namespace of the guarded host.
const ADDRESS: &str = "127.0.0.1:9090";
/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

/// A server, which ends with the test.
pub struct Prometheus<'a> {
    host: &'a Namespace,
    child: Child,
    folder: Scratch,
}

impl<'a> Prometheus<'a> {
    /// Scrapes the guard inside `host` twice a second, and evaluates these files of rules.
    pub fn start(host: &'a Namespace, rules: &[&str]) -> Result<Self> {
        let folder = Scratch::new()?;
        for (number, rules) in rules.iter().enumerate() {
            folder.write(&format!("rules{number}.yml"), rules)?;
        }
        let config = folder.write(
            "prometheus.yml",
            format!(
                "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}\n\
                 rule_files: [rules*.yml]\n\
                 scrape_configs:\n- job_name: portguard\n  static_configs: [{{targets: ['{}']}}]\n",
                metrics::ADDRESS,
            ),
        )?;
        let checked = Command::new("promtool")
            .args(["check", "config"])
            .arg(&config)
            .output()?;
        ensure!(checked.status.success(), "promtool: {checked:?}");

        let child = host
            .command("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.file("data").display()
            ))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.file("log"))?)
            .spawn()
            .context("run prometheus")?;
        let server = Self {
            host,
            child,
            folder,
        };
        server.wait_until(r#"up{job="portguard"} == 1"#)?;
        Ok(server)
    }

    /// What an expression yields now.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let query = format!("query={expression}");
        let answer = self.get("query", &["--data-urlencode", &query])?;
        let result = answer["data"]["result"].as_array();
        Ok(result.context("no result")?.clone())
    }

    /// The alerts that it has read: names and expressions.
    pub fn alerts(&self) -> Result<Vec<(String, String)>> {
        let answer = self.get("rules", &[])?;
        let groups = answer["data"]["groups"].as_array().context("no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        rules
            .flatten()
            .map(|rule| {
                let text = |name: &str| rule[name].as_str().map(str::to_owned);
                let pair = text("name").zip(text("query"));
                pair.with_context(|| format!("no name or query: {rule}"))
            })
            .collect()
    }

    /// Waits until an expression yields something.
    pub fn wait_until(&self, expression: &str) -> Result<()> {
        let deadline = Instant::now() + START;
        while !self.query(expression).is_ok_and(|found| !found.is_empty()) {
            ensure!(
                Instant::now() < deadline,
                "{expression} yields nothing: {}",
                fs::read_to_string(self.folder.file("log")).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn get(&self, path: &str, arguments: &[&str]) -> Result<Value> {
        let output = self
            .host
            .command("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "5", "-G"])
            .args(arguments)
            .arg(format!("http://{ADDRESS}/api/v1/{path}"))
            .output()?;
        ensure!(output.status.success(), "curl: {output:?}");
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(answer["status"] == "success", "{arguments:?}: {answer}");
        Ok(answer)
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
