//! The values that a setting may have: how to read them, and how to name them in an error.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;

/// Largest number of threads that serve connections.
const MAX_WORKERS: usize = 256;

/// The values that a setting may have. `P` turns a text into a value, or gives `None`.
#[derive(Debug)]
pub struct Allowed<P> {
    /// Says what is allowed, in errors and in the table of settings.
    pub text: String,
    /// Stands for a value in the help, in place of the setting's name.
    pub(crate) value_name: Option<&'static str>,
    /// The words whose meaning the help explains, each with its meaning.
    pub(crate) meanings: Vec<(String, String)>,
    /// Turns a text into a value.
    pub parse: P,
}

impl<P> Allowed<P> {
    /// Allows every value that `parse` takes; `text` says which they are.
    pub fn new<T>(text: &str, parse: P) -> Self
    where
        P: Fn(&str) -> Option<T>,
    {
        Self {
            text: text.to_owned(),
            value_name: None,
            meanings: Vec::new(),
            parse,
        }
    }

    /// Adds a name that stands for a value in the help.
    #[must_use]
    pub fn named(mut self, value_name: &'static str) -> Self {
        self.value_name = Some(value_name);
        self
    }

    /// Adds the meaning of each word; the lines of a meaning end with `\n`.
    #[must_use]
    pub fn meaning<'a>(mut self, words: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let owned = |(word, meaning): (&str, &str)| (word.to_owned(), meaning.to_owned());
        self.meanings = words.into_iter().map(owned).collect();
        self
    }
}

/// A time, such as `500us`, `1ms`, `60s`.
pub fn time() -> Allowed<impl Fn(&str) -> Option<Duration>> {
    let text = "a time with its unit: 0ms, 500us, 1ms, 60s (at most 1h)";
    Allowed::new(text, parse_time).named("TIME")
}

/// A time limit: a time that is not zero.
pub fn time_limit() -> Allowed<impl Fn(&str) -> Option<Duration>> {
    let text = "a time over zero with its unit: 500ms, 5s, 60s (at most 1h)";
    Allowed::new(text, |text| parse_time(text).filter(|it| !it.is_zero())).named("TIME")
}

fn parse_time(text: &str) -> Option<Duration> {
    let time = humantime::parse_duration(text).ok();
    time.filter(|time| *time <= Duration::from_secs(3600))
}

/// A number of bytes, such as `614400`, `64KiB`, `1MiB`.
pub fn bytes() -> Allowed<impl Fn(&str) -> Option<u64>> {
    let text = "a number of bytes: 614400, 64KiB, 1MiB, 10GB";
    let parse = |text: &str| text.parse().ok().map(|ByteSize(bytes)| bytes);
    Allowed::new(text, parse).named("BYTES")
}

/// A largest number of bytes; zero is no limit.
pub fn byte_limit() -> Allowed<impl Fn(&str) -> Option<Option<u64>>> {
    let Allowed { text, parse, .. } = bytes();
    let parse = move |text: &str| parse(text).map(|bytes| Some(bytes).filter(|it| *it > 0));
    Allowed::new(&text, parse).named("BYTES")
}

/// The size of a socket's buffer in bytes; `kernel` is `None`.
pub fn socket_buffer() -> Allowed<impl Fn(&str) -> Option<Option<u32>>> {
    // The kernel doubles the number, and takes it as an `int` (`sk_setsockopt`).
    let text = "kernel, or a number of bytes from 4KiB to 1GiB: 64KiB, 1MiB";
    let parse = |text: &str| match text {
        "kernel" => Some(None),
        bytes => {
            let ByteSize(bytes) = bytes.parse().ok()?;
            (4 << 10..=1 << 30).contains(&bytes).then_some(())?;
            u32::try_from(bytes).ok().map(Some)
        }
    };
    Allowed::new(text, parse).named("BYTES")
}

/// A `host:port` to listen on or to connect to.
pub fn host_port() -> Allowed<impl Fn(&str) -> Option<String>> {
    let text = "host:port, such as 127.0.0.1:8080, [::1]:8080, upstream:8000";
    let parse = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let sound = !host.is_empty()
            && host.len() <= 255
            && (bracketed || !host.contains(':'))
            && !host.contains(|c: char| c.is_whitespace() || c == '/');
        (sound && port.parse::<u16>().is_ok()).then(|| text.to_owned())
    };
    Allowed::new(text, parse).named("HOST:PORT")
}

/// A directory; an empty text is `None`.
pub fn directory() -> Allowed<impl Fn(&str) -> Option<Option<PathBuf>>> {
    let parse = |text: &str| Some((!text.is_empty()).then(|| text.into()));
    Allowed::new("the path of a directory", parse).named("DIR")
}

/// The mode of a file that its owner reads and writes, and that others may read.
pub fn file_mode() -> Allowed<impl Fn(&str) -> Option<u32>> {
    let parse = |text: &str| {
        let mode = u32::from_str_radix(text, 8).ok();
        mode.filter(|mode| [0o600, 0o640, 0o644].contains(mode))
    };
    Allowed::new("0600, 0640, 0644", parse).named("MODE")
}

/// A number from 1 to `max`.
pub fn count(max: usize) -> Allowed<impl Fn(&str) -> Option<usize>> {
    let parse = move |text: &str| text.parse().ok().filter(|count| (1..=max).contains(count));
    Allowed::new(&format!("a number from 1 to {max}"), parse).named("NUMBER")
}

/// A number of threads; the word is one for each core that the process may use (`sched_getaffinity(2)`, cgroup quota).
pub fn workers() -> Allowed<impl Fn(&str) -> Option<NonZeroUsize>> {
    let parse = |text: &str| match text {
        "cores" => Some(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)),
        text => text
            .parse()
            .ok()
            .filter(|count: &NonZeroUsize| count.get() <= MAX_WORKERS),
    };
    let text = format!("cores, or a number from 1 to {MAX_WORKERS}");
    Allowed::new(&text, parse).named("NUMBER")
}

/// `on` or `off`.
pub fn on_off() -> Allowed<impl Fn(&str) -> Option<bool>> {
    choice(&[("on", true), ("off", false)])
}

/// One of a few words.
pub fn choice<'a, T: Copy>(
    choices: impl Into<Vec<(&'a str, T)>>,
) -> Allowed<impl Fn(&str) -> Option<T>> {
    let choices = choices.into();
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    Allowed::new(&words.join(", "), move |text: &str| {
        let chosen = choices.iter().find(|(word, _)| *word == text);
        chosen.map(|(_, choice)| *choice)
    })
}
