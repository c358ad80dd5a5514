//! What the documents say of performance.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::{Results, plot, table};
use crate::contender::Contender;

/// Shows what matters most, in the first screen.
const README: &str = "README.md";
/// Shows all of it.
const PERFORMANCE: &str = "docs/performance.md";
/// The picture that both show.
const PICTURE: &str = "bench/results.svg";

/// Everything between these lines is the bench's.
const FROM: &str = "<!-- `cargo xtask bench --readme` writes from here -->";
const TO: &str = "<!-- to here -->";

/// Puts these figures, and the picture of them, in the place of those there are.
///
/// # Errors
/// When this is not the checkout, or a document has no place for them.
pub fn refresh(results: &Results) -> Result<()> {
    ensure!(
        Path::new("bench").is_dir(),
        "there is no folder bench here: run this in the checkout"
    );
    for (document, section) in [
        (README, summary(results)),
        (PERFORMANCE, everything(results)),
    ] {
        let text = fs::read_to_string(document).context(document)?;
        let text = replaced(&text, &section).context(document)?;
        fs::write(document, text).with_context(|| format!("write {document}"))?;
    }
    fs::write(PICTURE, plot::draw(results)).with_context(|| format!("write {PICTURE}"))
}

fn summary(results: &Results) -> String {
    format!(
        "\n{}\nMeasured on {}.\n\n{}\n\n",
        table::summary(results),
        results.machine,
        picture(PICTURE)
    )
}

/// The picture, by its path as seen from the document.
fn picture(path: &str) -> String {
    format!(
        "![bars: frames and connections a second, and what is left to a client, by contender]({path})"
    )
}

fn everything(results: &Results) -> String {
    let mut text = format!(
        "\nMeasured on {}.\n\n{}\n\n{}\n",
        results.machine,
        picture(&format!("../{PICTURE}")),
        table::markdown(results)
    );
    if let Some(footprint) = &results.footprint {
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "The daemon takes {:.1} MiB of memory, and {:.0} and {:.0} bytes of the kernel's for \
             each flow of IPv4 and IPv6 that its maps have room for.\n\
             It guards {:.0} ms after its start, and a change of the range is in force after \
             {:.0} ms.\n",
            footprint.resident,
            footprint.bytes_a_flow_v4,
            footprint.bytes_a_flow_v6,
            footprint.start.low,
            footprint.range.median,
        );
    }
    let missing: Vec<String> = Contender::PEERS
        .iter()
        .filter(|peer| {
            let mut floods = results.floods.iter();
            floods.all(|reading| reading.flooded.contender != **peer)
        })
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        let _ = writeln!(text, "Not measured: {}.\n", missing.join(", "));
    }
    text
}

/// `text` with `section` between the two lines.
fn replaced(text: &str, section: &str) -> Result<String> {
    let missing = |line| format!("the line {line} is missing");
    let (before, rest) = text.split_once(FROM).with_context(|| missing(FROM))?;
    let (_, after) = rest.split_once(TO).with_context(|| missing(TO))?;
    Ok(format!("{before}{FROM}\n{section}{TO}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_lines_changes_however_often() {
        let text = format!("before\n{FROM}\nold\n{TO}\nafter\n");
        let once = replaced(&text, "new\n").unwrap();
        assert_eq!(once, format!("before\n{FROM}\nnew\n{TO}\nafter\n"));
        assert_eq!(replaced(&once, "new\n").unwrap(), once);
    }

    #[test]
    fn a_document_without_a_place_for_figures_stays_as_it_is() {
        assert!(replaced(&format!("{FROM} and no end"), "new").is_err());
        assert!(replaced("nothing", "new").is_err());
    }

    #[test]
    fn the_documents_have_a_place_for_figures() {
        for document in [README, PERFORMANCE] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("..")
                .join(document);
            assert!(replaced(&fs::read_to_string(path).unwrap(), "").is_ok());
        }
    }
}
