//! The suites on other kernels: Debian's own, booted under QEMU and thrown away.

mod boot;
mod fetch;
mod image;
mod mirror;
mod modules;
mod verdict;

use anyhow::{Context, Result, bail, ensure};

use crate::build::Built;
use crate::process::announce;
use crate::suites::{self, Suite};
use crate::version::Version;

use verdict::Verdict;

/// The suites that need nothing but a kernel and the binary.
const SUITES: [&str; 2] = ["verdicts", "lifecycle"];

/// Runs the suites on each of `kernels`, and tells at the end how each fared.
pub fn test(kernels: &[Version], built: &Built, filter: Option<&str>) -> Result<()> {
    let suites: Vec<Suite> = suites::compile(built)?
        .into_iter()
        .filter(|suite| SUITES.contains(&suite.name.as_str()))
        .collect();
    ensure!(
        !suites.is_empty(),
        "none of the suites {} exists: nothing would be tested",
        SUITES.join(" and "),
    );

    let mut verdicts = Vec::new();
    for &kernel in kernels {
        let verdict = on(kernel, built, &suites, filter)
            .with_context(|| format!("kernel {kernel} was not tested"))?;
        verdicts.push((kernel, verdict));
    }

    announce("kernels");
    for (kernel, verdict) in &verdicts {
        eprint!("{}", verdict.table(*kernel));
    }
    let failed: Vec<String> = verdicts
        .iter()
        .filter(|(_, verdict)| !verdict.passed())
        .map(|(kernel, _)| kernel.to_string())
        .collect();
    if !failed.is_empty() {
        bail!("failed on Linux {}", failed.join(", "));
    }
    Ok(())
}

fn on(version: Version, built: &Built, suites: &[Suite], filter: Option<&str>) -> Result<Verdict> {
    let kernel = fetch::kernel(version)?;
    announce(&format!("Linux {}: making the initramfs", kernel.release));
    let initramfs = image::build(&kernel, built, suites, filter)?;
    announce(&format!("Linux {}: booting", kernel.release));
    let console = boot::run(&kernel, &initramfs)?;

    Ok(Verdict::read(&console, suites, filter.is_some()))
}
