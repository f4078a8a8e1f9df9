//! Makes text of unknown origin safe to print.

/// A text that others chose, made safe for one line of a terminal. Characters that move the cursor, turn the direction
/// or are invisible become question marks; a text of more than `max` characters is cut.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut shown: String = text
        .chars()
        .take(max)
        .map(|c| if is_odd(c) { '?' } else { c })
        .collect();
    if text.chars().nth(max).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// Control characters, formatting characters (Unicode's category Cf), and Unicode's two line separators.
fn is_odd(c: char) -> bool {
    let formats = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}' | '\u{e0000}'..='\u{e007f}'
    );
    c.is_control() || formats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_would_steer_a_terminal_are_not_printed() {
        assert_eq!(printable("a\u{1b}[31m\n\u{202e}é", 99), "a?[31m??é");
        assert_eq!(printable("12345", 5), "12345");
        assert_eq!(printable("123456", 5), "1234…");
    }
}
