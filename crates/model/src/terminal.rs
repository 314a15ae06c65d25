//! Text of files on its way to a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Most characters of a name in a table or a list.
pub const NAME: usize = 120;

/// Most characters of an error or a note.
pub const MESSAGE: usize = 2_000;

/// Text as one line of at most `most` characters: control characters and those that change the direction of text are escaped, and
/// of what is too long the middle is left out.
pub fn line(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let characters = text.chars().count();
    if characters <= most {
        return Cow::Owned(escaped(text.chars(), most));
    }
    // The end of a message says what was found.
    let (first, last) = (most / 4 * 3, most / 4);
    let mut out = escaped(text.chars(), first);
    let _ = write!(out, " ... ({characters} characters) ... ");
    out += &escaped(text.chars().skip(characters - last), last);
    Cow::Owned(out)
}

/// A name of a file as [`line()`] of at most [`NAME`] characters.
pub fn name(name: &str) -> Cow<'_, str> {
    line(name, NAME)
}

/// Up to `most` characters, escapes counted as they are written.
fn escaped(text: impl Iterator<Item = char>, most: usize) -> String {
    let mut out = String::new();
    let mut length = 0;
    for c in text {
        if length >= most {
            break;
        }
        if is_unprintable(c) {
            let before = out.len();
            out.extend(c.escape_default());
            length += out.len() - before;
        } else {
            out.push(c);
            length += 1;
        }
    }
    out
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
        assert!(short.chars().count() < 150, "{short}");
        let hostile = line(&"\u{1b}".repeat(10_000), 100).into_owned();
        assert!(hostile.len() < 150, "{hostile}");
        assert!(!hostile.contains('\u{1b}'));
        // Escapes count with the characters that they are written as.
        assert!(line(&"\u{1b}".repeat(90), 100).len() <= 106);
    }
}
