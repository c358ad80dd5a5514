//! The configuration file: TOML with one key for every flag.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use super::ConfigLayer;
use crate::base::failure::{Exit, Failure};

/// Longer than any file written by hand: reading ends here, whatever the file is.
const LONGEST: u64 = 1 << 20;

/// Reads the configuration file at `path`.
///
/// # Errors
/// When it cannot be read, or [`parse`] refuses it; exit code 78.
pub(super) fn read(path: &Path) -> Result<ConfigLayer, Failure> {
    let shown = path.display().to_string();
    let text = text(path).map_err(|error| {
        Failure::new(
            Exit::BadConfiguration,
            anyhow::Error::from(error).context(shown.clone()),
        )
        .remedy("give --config a readable file")
    })?;

    parse(&text, &shown)
}

fn text(path: &Path) -> io::Result<String> {
    // Without waiting for the other end of a pipe.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    let wrong = if kind.is_fifo() {
        Some("a pipe, which cannot be read again".to_owned())
    } else if kind.is_dir() {
        Some("a folder".to_owned())
    } else if !kind.is_file() {
        Some("no regular file".to_owned())
    } else if metadata.len() > LONGEST {
        Some(format!(
            "{} bytes, a configuration has {LONGEST} at most",
            metadata.len()
        ))
    } else {
        None
    };
    if let Some(wrong) = wrong {
        return Err(io::Error::other(wrong));
    }

    // Files of procfs and the like do not say how long they are.
    let mut bytes = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if read as u64 > LONGEST {
        return Err(io::Error::other(format!("more than {LONGEST} bytes")));
    }

    String::from_utf8(bytes).map_err(|_| io::Error::other("no text in UTF-8"))
}

/// Parses the text of the configuration file called `name`.
///
/// # Errors
/// With `name:line:column` for broken TOML, an unknown key or a bad value; exit code 78.
pub(super) fn parse(text: &str, name: &str) -> Result<ConfigLayer, Failure> {
    toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let (line, column) = position(text, offset);
        let message = in_words(error.message().trim_end(), key(text, offset));
        Failure::bad_configuration(format!("{name}:{line}:{column}: {message}"))
    })
}

/// The key whose value is at `offset`, if one is on the same line.
fn key(text: &str, offset: usize) -> Option<&str> {
    let before = text.get(..offset)?;
    let line = before.rsplit('\n').next()?;
    let (key, _) = line.split_once('=')?;

    Some(key.trim())
}

/// What the parser says of a value of the wrong type, which it does in words of its own language, in
/// words of the file's.
fn in_words(message: &str, key: Option<&str>) -> String {
    if message == "wanted string or table" {
        return "no text; write it in quotes".to_owned();
    }
    let untyped = ["invalid type: ", "invalid value: "]
        .into_iter()
        .find_map(|start| message.strip_prefix(start)?.split_once(", expected "));
    let Some((found, expected)) = untyped else {
        return message
            .replacen("unknown field", "unknown key", 1)
            .replacen("unknown variant", "unknown word", 1);
    };

    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    let found = match kind {
        "string" => value,
        "integer" | "boolean" => value.trim_matches('`'),
        "floating" => value.trim_start_matches("point ").trim_matches('`'),
        "sequence" => "a list",
        "map" => "a table",
        _ => found,
    };
    let key = key.unwrap_or("key");
    match expected {
        "a sequence" if found.starts_with('"') || found.parse::<f64>().is_ok() => {
            format!("{found} is no list; write {key} = [{found}]")
        }
        "a sequence" => format!("{found} is no list; write {key} = [ .. ]"),
        "a boolean" => format!("{found} is neither true nor false; write {key} = true"),
        "a map" => format!("{found} is no table; write [{key}] and a line for each of its keys"),
        "a string" | "path string" => {
            format!("{found} is no text; write it in quotes")
        }
        "u64" | "i64" | "u32" | "u16" => {
            format!("{found} is no number that fits; write it in digits, without quotes")
        }
        _ => format!("{found} does not fit, expected {expected}"),
    }
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
