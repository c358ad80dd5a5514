//! Text that remote hosts or local users choose, such as the name of a process, made fit to be shown.
//!
//! A name may hold any byte. A line end would forge a line of the log that an administrator acts on, and an
//! escape sequence would change what a terminal shows.

/// The longest name that is shown, in bytes.
const LONGEST: usize = 256;

/// A name on one line, of bounded length, without what a terminal or a log would obey.
pub fn plain(name: &str) -> String {
    let mut plain = one_line(name);
    if plain.len() > LONGEST {
        let end = plain.floor_char_boundary(LONGEST - "...".len());
        plain.truncate(end);
        plain.push_str("...");
    }

    plain
}

/// A text on one line, without what a terminal or a log would obey.
pub fn one_line(text: &str) -> String {
    text.replace(obeyed, "?")
}

/// Whether a character is an order rather than something to read.
fn obeyed(character: char) -> bool {
    // Line and paragraph separators, and what turns the direction of the text around it.
    let unicode = matches!(
        character,
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}'
    );

    character.is_control() || unicode
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_by_others_stays_on_its_line() {
        let table = [
            ("sshd", "sshd"),
            ("a b \"c\"", "a b \"c\""),
            ("grüße", "grüße"),
            (
                "x\nerror: guarding nothing\r\n",
                "x?error: guarding nothing??",
            ),
            ("\u{1b}[2J", "?[2J"),
            ("\u{9b}2J\0\t\u{7f}", "?2J???"),
            ("a\u{2028}b\u{202e}c", "a?b?c"),
        ];
        for (name, shown) in table {
            assert_eq!(plain(name), shown, "{name:?}");
        }
    }

    #[test]
    fn what_is_chosen_by_others_is_bounded() {
        for name in ["x".repeat(10_000), "ü".repeat(10_000)] {
            let shown = plain(&name);
            assert!(shown.len() <= LONGEST, "{}", shown.len());
            assert!(shown.ends_with("..."));
        }
        assert_eq!(plain(&"x".repeat(LONGEST)).len(), LONGEST);
    }
}
