//! Placeholders in the commands, variables and files of a list, such as `{port}`.

/// The names of the placeholders that an entry has.
pub(super) fn names(proxy: bool, unix: bool) -> Vec<&'static str> {
    let mut names = vec!["bin", "tmp"];
    names.push(if unix { "unix" } else { "port" });
    names.extend(proxy.then_some("upstream"));
    names
}

/// The placeholders in a text: words of small letters in braces.
pub(super) fn used(text: &str) -> impl Iterator<Item = &str> {
    let ends = text
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'));
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    ends.map(|(word, _)| word).filter(move |word| is_word(word))
}

/// The text with its placeholders replaced by their values.
pub(super) fn filled(text: &str, values: &[(&'static str, String)]) -> String {
    let mut text = text.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    text
}
