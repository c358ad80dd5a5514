//! The suites on other kernels: Debian's own, booted under QEMU and thrown away.

mod boot;
mod cards;
mod fetch;
mod image;
mod mirror;
mod modules;
mod verdict;

use anyhow::{Result, ensure};

use crate::build::Built;
use crate::process::announce;
use crate::suites::{self, Suite};
use crate::version::Version;

use cards::Cards;
use verdict::Verdict;

/// The suites that need nothing but a kernel and the binary: what is loaded and how much the
/// verifier has to look at, what the programs decide, how the daemon starts and ends, and what it
/// may do meanwhile.
const SUITES: [&str; 4] = ["object", "verdicts", "lifecycle", "privileges"];

/// The suite that goes by the cards of its machine, and those of its tests that do.
const CARD_SUITE: &str = "drivers";
const CARD_TESTS: &str = "cards::";

/// Which tests are run.
pub struct Selection<'a> {
    /// Those whose name contains this, or all.
    pub filter: Option<&'a str>,
    /// But none whose name contains one of these.
    pub skipped: &'a [&'a str],
}

impl Selection<'_> {
    /// What says so to a suite, a word a line.
    fn arguments(&self) -> String {
        let skipped = self.skipped.iter().flat_map(|name| ["--skip", name]);
        let words: Vec<&str> = self.filter.into_iter().chain(skipped).collect();

        words.join("\n")
    }
}

/// Runs the suites on each of `kernels`, and tells at the end how each fared.
pub fn test(kernels: &[Version], built: &Built, selection: &Selection<'_>) -> Result<()> {
    each(kernels, built, &SUITES, selection, &Cards::none())
}

/// Guards network cards of every kind, or of those that a change is tried on, on each of `kernels`,
/// and tells at the end how each fared.
pub fn test_cards(kernels: &[Version], built: &Built, brief: bool) -> Result<()> {
    let selection = Selection {
        filter: Some(CARD_TESTS),
        skipped: &[],
    };
    each(
        kernels,
        built,
        &[CARD_SUITE],
        &selection,
        &Cards::every(brief),
    )
}

fn each(
    kernels: &[Version],
    built: &Built,
    names: &[&str],
    selection: &Selection<'_>,
    cards: &Cards,
) -> Result<()> {
    let suites: Vec<Suite> = suites::compile(built)?
        .suites
        .into_iter()
        .filter(|suite| names.contains(&suite.name.as_str()))
        .collect();
    ensure!(
        !suites.is_empty(),
        "none of the suites {} exists: nothing would be tested",
        names.join(", "),
    );

    // A kernel that cannot be tested is no reason to leave the others untested.
    let verdicts: Vec<(Version, Result<Verdict>)> = kernels
        .iter()
        .map(|&kernel| (kernel, on(kernel, built, &suites, selection, cards)))
        .collect();

    announce("kernels");
    for (kernel, verdict) in &verdicts {
        match verdict {
            Ok(verdict) => eprint!("{}", verdict.table(*kernel)),
            Err(error) => eprintln!("{:<6} was not tested: {error:#}", kernel.to_string()),
        }
    }
    let failed: Vec<String> = verdicts
        .iter()
        .filter(|(_, verdict)| !verdict.as_ref().is_ok_and(Verdict::passed))
        .map(|(kernel, _)| kernel.to_string())
        .collect();
    ensure!(failed.is_empty(), "failed on Linux {}", failed.join(", "));
    Ok(())
}

fn on(
    version: Version,
    built: &Built,
    suites: &[Suite],
    selection: &Selection<'_>,
    cards: &Cards,
) -> Result<Verdict> {
    let kernel = fetch::kernel(version)?;
    announce(&format!("Linux {}: making the initramfs", kernel.release));
    let told = (!cards.is_empty()).then(|| cards.told(version));
    let initramfs = image::build(&kernel, built, suites, selection, told.as_deref())?;
    announce(&format!("Linux {}: booting", kernel.release));
    let console = boot::run(&kernel, &initramfs, cards)?;

    Ok(Verdict::read(&console, suites, selection.filter.is_some()))
}
