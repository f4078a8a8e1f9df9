/// Breaks a text at its blanks, and at its line ends, into pieces of at most `columns`; a longer word is broken too.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    for line in text.split('\n') {
        let mut piece = String::new();
        let mut length = 0;
        for word in line.split(' ') {
            let word: Vec<char> = word.chars().collect();
            if length > 0 && length + 1 + word.len() > columns {
                pieces.push(std::mem::take(&mut piece));
                length = 0;
            }
            if length > 0 {
                piece.push(' ');
                length += 1;
            }
            for c in word {
                if length == columns {
                    pieces.push(std::mem::take(&mut piece));
                    length = 0;
                }
                piece.push(c);
                length += 1;
            }
        }
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_at_blanks_and_in_words_that_are_too_long() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij\nk", 3), ["abc", "def", "gh", "ij", "k"]);
        assert_eq!(wrap("", 3), [""]);
    }
}
