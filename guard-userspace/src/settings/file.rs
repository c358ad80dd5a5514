//! The configuration file: TOML with one key for every flag.

use std::{fs, io, os::unix::fs::FileTypeExt, path::Path};

use super::Layer;
use crate::failure::{Exit, Failure};

/// Reads the configuration file at `path`.
///
/// # Errors
/// When it cannot be read, or [`parse`] refuses it; exit code 78.
pub(super) fn read(path: &Path) -> Result<Layer, Failure> {
    let shown = path.display();
    // Whoever reads a pipe waits for its other end.
    let text = fs::metadata(path).and_then(|metadata| {
        if metadata.file_type().is_fifo() {
            return Err(io::Error::other("a pipe, which cannot be read again"));
        }
        fs::read_to_string(path)
    });
    let text = text.map_err(|error| {
        Failure::new(
            Exit::BadConfiguration,
            anyhow::Error::from(error).context(shown.to_string()),
        )
        .remedy("give --config a readable file")
    })?;

    parse(&text, &shown.to_string())
}

/// Parses the text of the configuration file called `name`.
///
/// # Errors
/// With `name:line:column` for broken TOML, an unknown key or a bad value; exit code 78.
pub(super) fn parse(text: &str, name: &str) -> Result<Layer, Failure> {
    toml::from_str(text).map_err(|error| {
        let (line, column) = position(text, error.span().map_or(0, |span| span.start));
        let message = error.message().trim_end();
        Failure::bad_configuration(format!("{name}:{line}:{column}: {message}"))
    })
}

/// Line and column, both from 1 and the column in characters, of the byte at `offset`.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |last| last.chars().count())
        + 1;

    (line, column)
}
