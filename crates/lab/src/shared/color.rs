//! Colors in reports on a terminal; `--color` and the variable `NO_COLOR` choose.
//!
//! Texts are colored after their lines were broken, so that no width counts the codes.

use std::io;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// What a text is, for the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// All is well.
    Good,
    /// Nobody can tell, or nothing is lost yet.
    Unsure,
    /// Something was lost.
    Bad,
    /// What to read first.
    Strong,
}

impl Tone {
    fn style(self) -> Style {
        let color = |color: AnsiColor| color.on_default();
        match self {
            Self::Good => color(AnsiColor::Green),
            Self::Unsure => color(AnsiColor::Yellow),
            Self::Bad => color(AnsiColor::Red).bold(),
            Self::Strong => Style::new().bold(),
        }
    }
}

/// Whether standard output gets colors: the user asked for them, or it is a terminal and nobody forbids them.
fn is_on() -> bool {
    // Unit tests compare texts, whichever terminal they run on.
    !cfg!(test) && AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// The text in its tone, if standard output gets colors.
pub(crate) fn toned(text: &str, tone: Tone) -> String {
    match is_on() {
        true => styled(text, tone),
        false => text.to_owned(),
    }
}

/// The text with each of these words and phrases in its tone, if standard output gets colors. A blank of a phrase is any
/// white space: a line may have been broken there.
pub(crate) fn tone_words(text: &str, words: &[(&str, Tone)]) -> String {
    match is_on() {
        true => with_styled_words(text, words),
        false => text.to_owned(),
    }
}

fn styled(text: &str, tone: Tone) -> String {
    let style = tone.style();
    format!("{style}{text}{style:#}")
}

fn with_styled_words(text: &str, words: &[(&str, Tone)]) -> String {
    let mut shown = String::new();
    let mut rest = text;
    let mut is_begin = true;
    while let Some(first) = rest.chars().next() {
        let found = words.iter().filter(|_| is_begin);
        let found = found.filter_map(|(word, tone)| Some((begins_with(rest, word)?, *tone)));
        // "perhaps fixed" is not "fixed": the longest one counts.
        let bytes = match found.max_by_key(|(bytes, _)| *bytes) {
            Some((bytes, tone)) => {
                shown += &styled(&rest[..bytes], tone);
                bytes
            }
            None => {
                shown.push(first);
                first.len_utf8()
            }
        };
        is_begin = rest[..bytes].chars().next_back().is_some_and(is_between);
        rest = &rest[bytes..];
    }
    shown
}

/// The length of the words at the beginning of the text, if no letter follows them.
fn begins_with(text: &str, words: &str) -> Option<usize> {
    let mut chars = text.chars();
    for word in words.chars() {
        let c = chars.next()?;
        (c == word || (word == ' ' && c.is_whitespace())).then_some(())?;
    }
    let rest = chars.as_str();
    let is_end = rest.chars().next().is_none_or(is_between) || words.ends_with(':');
    is_end.then_some(text.len() - rest.len())
}

/// Whether a character stands between words; names such as `half-close` are one word.
fn is_between(c: char) -> bool {
    !c.is_alphanumeric() && c != '-' && c != '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_colored_where_they_stand_alone() {
        let words = [
            ("loses", Tone::Bad),
            ("fixed", Tone::Good),
            ("perhaps fixed", Tone::Unsure),
        ];
        let shown = with_styled_words("loses closes loses-it\nperhaps\nfixed, fixed", &words);
        let (bad, good, unsure) = ("\u{1b}[1m\u{1b}[31m", "\u{1b}[32m", "\u{1b}[33m");
        let end = "\u{1b}[0m";
        assert_eq!(
            shown,
            format!(
                "{bad}loses{end} closes loses-it\n{unsure}perhaps\nfixed{end}, {good}fixed{end}"
            )
        );
    }
}
