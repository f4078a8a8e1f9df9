//! Reads settings from their texts, and names every bad one.

use std::fmt::Write as _;
use std::time::Duration;

use crate::allowed::{self, Allowed};

/// Reads settings from their texts and remembers every bad one, so that one error names them all.
///
/// Each reader returns `None` for a bad value; [`finish`](Settings::finish) turns that into the error.
#[derive(Debug, Default)]
pub struct Settings {
    bad: Vec<String>,
}

/// Every bad setting, with its value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct BadSettings(Vec<String>);

impl BadSettings {
    fn text(&self) -> String {
        let count = self.0.len();
        let mut text = format!("{count} bad setting{}", if count == 1 { "" } else { "s" });
        for bad in &self.0 {
            // Writing to a String does not fail.
            let _ = write!(text, "\n  {bad}");
        }
        text
    }
}

impl Settings {
    /// Reads one setting with `parse`; `allowed` says which values `parse` takes.
    pub fn read<T>(
        &mut self,
        name: &str,
        value: &str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(value.trim());
        if parsed.is_none() {
            self.bad
                .push(format!("{name}={value:?}; allowed: {allowed}"));
        }
        parsed
    }

    /// Reads one setting, whose values `allowed` describes.
    pub fn check<T, P>(&mut self, name: &str, value: &str, allowed: Allowed<P>) -> Option<T>
    where
        P: Fn(&str) -> Option<T>,
    {
        self.read(name, value, &allowed.text, allowed.parse)
    }

    /// A time, such as `500us`, `1ms`, `60s`.
    pub fn time(&mut self, name: &str, value: &str) -> Option<Duration> {
        self.check(name, value, allowed::time())
    }

    /// A time limit: a time that is not zero.
    pub fn time_limit(&mut self, name: &str, value: &str) -> Option<Duration> {
        self.check(name, value, allowed::time_limit())
    }

    /// A number of bytes, such as `614400`, `64KiB`, `1MiB`.
    pub fn bytes(&mut self, name: &str, value: &str) -> Option<u64> {
        self.check(name, value, allowed::bytes())
    }

    /// A `host:port` to listen on or to connect to.
    pub fn host_port(&mut self, name: &str, value: &str) -> Option<String> {
        self.check(name, value, allowed::host_port())
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, name: &str, value: &str, choices: &[(&str, T)]) -> Option<T> {
        self.check(name, value, allowed::choice(choices))
    }

    /// The settings put together, or the error that names every bad one.
    ///
    /// # Errors
    /// At least one value was bad.
    pub fn finish<T>(self, settings: Option<T>) -> Result<T, BadSettings> {
        match settings {
            Some(settings) if self.bad.is_empty() => Ok(settings),
            _ => Err(BadSettings(self.bad)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_sizes_addresses_and_words() {
        let mut settings = Settings::default();
        assert_eq!(
            settings.time("GAP", "500us"),
            Some(Duration::from_micros(500))
        );
        assert_eq!(settings.time("GAP", "0ms"), Some(Duration::ZERO));
        assert_eq!(settings.bytes("SIZE", "1MiB"), Some(1 << 20));
        assert_eq!(settings.bytes("SIZE", "614400"), Some(614_400));
        for good in ["127.0.0.1:8080", "[::1]:0", "upstream:8000"] {
            assert_eq!(
                settings.host_port("LISTEN", good).as_deref(),
                Some(good),
                "{good}"
            );
        }
        assert_eq!(settings.choice("MODE", "b", &[("a", 1), ("b", 2)]), Some(2));
        assert_eq!(settings.finish(Some(())), Ok(()));
    }

    #[test]
    fn every_bad_value_is_named_with_what_is_allowed() {
        let mut settings = Settings::default();
        settings.time("GAP", "1");
        settings.time_limit("TIMEOUT", "0s");
        settings.bytes("SIZE", "-1");
        settings.choice("MODE", "lzy", &[("lazy", ()), ("drain", ())]);
        for bad in ["8080", ":80", "::1:80", "a b:80", "host:http", "host:65536"] {
            assert_eq!(settings.host_port("LISTEN", bad), None, "{bad}");
        }
        let text = settings.finish(None::<()>).unwrap_err().to_string();
        for part in [
            "10 bad settings",
            "GAP=\"1\"",
            "TIMEOUT=\"0s\"",
            "SIZE=\"-1\"",
            "MODE=\"lzy\"; allowed: lazy, drain",
            "LISTEN=\"host:65536\"; allowed: host:port",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }
}
