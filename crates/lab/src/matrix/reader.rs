use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::IntoDeserializer as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::Kind;

/// Reads a file's tables and remembers everything that is wrong with them, with its line.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) directory: &'a Path,
    pub(super) problems: BTreeSet<(usize, String)>,
    pub(super) names: BTreeSet<(Kind, String)>,
}

/// The keys of a table that were not looked at yet.
pub(super) struct Keys<'a> {
    /// What the table is, for messages.
    pub(super) of: String,
    pub(super) span: Range<usize>,
    pub(super) left: DeTable<'a>,
}

impl<'a> Reader<'a> {
    /// Notes what is wrong at a place.
    pub(super) fn wrong(&mut self, span: &Range<usize>, problem: String) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        self.problems.insert((line, problem));
    }

    /// A key's value and place, if it is there and of the right type.
    pub(super) fn take<T: Deserialize<'a>>(
        &mut self,
        keys: &mut Keys<'a>,
        key: &str,
    ) -> Option<(T, Range<usize>)> {
        let value = keys.left.remove(key)?;
        let span = value.span();
        match T::deserialize(value.into_deserializer()) {
            Ok(value) => Some((value, span)),
            Err(error) => {
                let message = format!("{}: `{key}`: {}", keys.of, error.message().trim());
                self.wrong(&error.span().unwrap_or(span), message);
                None
            }
        }
    }

    pub(super) fn read<T>(
        &mut self,
        keys: &mut Keys<'a>,
        key: &str,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (text, span) = self.take::<String>(keys, key)?;
        let value = read(&text);
        if value.is_none() {
            self.wrong(
                &span,
                format!("{}: `{key}` is {text:?}; allowed: {allowed}", keys.of),
            );
        }
        value
    }

    pub(super) fn number(&mut self, keys: &mut Keys<'a>, key: &str) -> Option<u64> {
        let (number, span) = self.take::<u64>(keys, key)?;
        if !(1..=10_000).contains(&number) {
            self.wrong(
                &span,
                format!("{}: `{key}` is {number}; allowed: 1 to 10000", keys.of),
            );
        }
        Some(number)
    }

    pub(super) fn table(&mut self, keys: &mut Keys<'a>, key: &str) -> Option<Keys<'a>> {
        let value = keys.left.remove(key)?;
        self.keys(value, format!("[{key}]"))
    }

    pub(super) fn keys(&mut self, value: Spanned<DeValue<'a>>, of: String) -> Option<Keys<'a>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(left) => Some(Keys { of, span, left }),
            other => {
                self.wrong(
                    &span,
                    format!("{of} has to be a table and is {}", other.type_str()),
                );
                None
            }
        }
    }

    pub(super) fn tables(&mut self, keys: &mut Keys<'a>, key: &str) -> Vec<Keys<'a>> {
        let Some(value) = keys.left.remove(key) else {
            return Vec::new();
        };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(values) => {
                let values = values.into_iter();
                values
                    .filter_map(|value| self.keys(value, key.to_owned()))
                    .collect()
            }
            _ => {
                self.wrong(
                    &span,
                    format!("`{key}` is written [[{key}]], once for each"),
                );
                Vec::new()
            }
        }
    }

    /// What is left is not known.
    pub(super) fn finish(&mut self, keys: Keys<'a>) {
        for (key, _) in keys.left {
            self.wrong(
                &key.span(),
                format!("{}: unknown key `{}`", keys.of, key.get_ref()),
            );
        }
    }
}
