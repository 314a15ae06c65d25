//! Text of files on its way to a terminal.

use std::borrow::Cow;

/// Most characters of a name in a table or a list.
pub const NAME: usize = 120;

/// Most characters of an error or a note.
pub const MESSAGE: usize = 2_000;

/// Text as one line of at most `most` characters, which are at least 40: control characters and those that change the direction of text are escaped, and
/// of what is too long the middle is left out.
pub fn line(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let written: usize = text.chars().map(|c| escape(c).count()).sum();
    if written <= most {
        return Cow::Owned(text.chars().flat_map(escape).collect());
    }
    let middle = format!(" ... ({} characters) ... ", text.chars().count());
    // The end of a message says what was found.
    let room = most.saturating_sub(middle.len());
    let last = end(text, room / 4);
    let mut out = beginning(text, room - room / 4);
    out += &middle;
    out.extend(last.chars().flat_map(escape));
    Cow::Owned(out)
}

/// A name of a file as [`line()`] of at most [`NAME`] characters.
pub fn name(name: &str) -> Cow<'_, str> {
    line(name, NAME)
}

/// A character as it is written.
fn escape(c: char) -> impl Iterator<Item = char> {
    let (escaped, plain) = match is_unprintable(c) {
        true => (Some(c.escape_default()), None),
        false => (None, Some(c)),
    };
    escaped.into_iter().flatten().chain(plain)
}

/// The first characters of `text`, as far as they are written as at most `most`.
fn beginning(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut left = most;
    for c in text.chars() {
        let length = escape(c).count();
        if length > left {
            break;
        }
        left -= length;
        out.extend(escape(c));
    }
    out
}

/// The last characters of `text`, as far as they are written as at most `most`.
fn end(text: &str, most: usize) -> &str {
    let mut left = most;
    let mut start = text.len();
    for (at, c) in text.char_indices().rev() {
        let length = escape(c).count();
        if length > left {
            break;
        }
        left -= length;
        start = at;
    }
    &text[start..]
}

/// Whether a terminal does something else with a character than show it.
pub fn is_unprintable(c: char) -> bool {
    let is_format = matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    );
    (c.is_control() && c != '\t') || is_format
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_others_stay() {
        assert_eq!(
            line("fc1\u{1b}[2J\r\nok\u{9b}\té\u{202e}", MESSAGE),
            "fc1\\u{1b}[2J\\r\\nok\\u{9b}\té\\u{202e}"
        );
        assert!(matches!(line("features.0.weight", NAME), Cow::Borrowed(_)));
    }

    #[test]
    fn long_text_keeps_its_beginning_and_its_end() {
        let long = format!("begin{}end", "x".repeat(10_000));
        let short = line(&long, 100);
        assert!(
            short.starts_with("beginxx") && short.ends_with("xxend"),
            "{short}"
        );
        assert!(short.contains("(10008 characters)"), "{short}");
        assert_eq!(short.chars().count(), 100, "{short}");
    }

    #[test]
    fn no_line_is_longer_than_asked_for() {
        for most in [40, 100, 101, MESSAGE] {
            for count in [most / 6, most / 6 + 1, most - 1, most, most + 1, 10_000] {
                for unit in ["x", "\u{1b}", "x\u{e0001}", "\u{202e}ä"] {
                    let text = unit.repeat(count);
                    let line = line(&text, most);
                    assert!(!line.contains(is_unprintable), "{line}");
                    assert!(
                        line.chars().count() <= most,
                        "{unit:?} {count} {most}: {line}"
                    );
                    // Nothing is left out without a word.
                    let whole: usize = text.chars().map(|c| escape(c).count()).sum();
                    assert_eq!(line.contains(" ... ("), whole > most, "{line}");
                }
            }
        }
    }
}
