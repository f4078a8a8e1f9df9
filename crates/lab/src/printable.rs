/// A text that others chose, made safe for a terminal and for a line of its own: what moves the cursor, turns the
/// direction or is not seen becomes a question mark, and of a long one the beginning is kept.
pub(crate) fn printable(text: &str, most: usize) -> String {
    let mut shown: String = text
        .chars()
        .take(most)
        .map(|c| if is_odd(c) { '?' } else { c })
        .collect();
    if text.chars().nth(most).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// Control characters, and those that only format (Unicode's category Cf, and the two separators of lines).
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
    fn what_would_move_a_terminal_is_not_printed() {
        assert_eq!(printable("a\u{1b}[31m\n\u{202e}é", 99), "a?[31m??é");
        assert_eq!(printable("12345", 5), "12345");
        assert_eq!(printable("123456", 5), "1234…");
    }
}
