use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::Serialize;

/// A file that a report goes to, opened before the work: what can't be written is better known then. What it holds
/// stays until there is a report.
#[derive(Debug)]
pub(crate) struct Output(Option<Opened>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    file: File,
    /// There was none before.
    is_new: bool,
    is_written: bool,
}

impl Output {
    /// Opens the file, if one is asked for; `-` is standard output.
    ///
    /// # Errors
    /// It can't be written to.
    pub(crate) fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        let opened = path.map(|path| {
            let path = match path == Path::new("-") {
                true => Path::new("/dev/stdout"),
                false => path,
            };
            Opened::open(path).with_context(|| format!("cannot write {}", path.display()))
        });
        Ok(Self(opened.transpose()?))
    }

    /// Writes the text in place of what the file holds, if there is a file.
    ///
    /// # Errors
    /// The text can't be made, or not be written.
    pub(crate) fn write(self, text: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<()> {
        if let Some(mut opened) = self.0 {
            let text = text()?;
            opened
                .replace(text.as_bytes())
                .with_context(|| format!("cannot write {}", opened.path.display()))?;
        }
        Ok(())
    }

    /// Writes it as JSON for people and programs, as [`write`](Self::write) does a text.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn write_json(self, report: &impl Serialize) -> anyhow::Result<()> {
        self.write(|| Ok(serde_json::to_string_pretty(report)? + "\n"))
    }
}

impl Opened {
    fn open(path: &Path) -> io::Result<Self> {
        let is_new = !path.try_exists()?;
        let mut options = File::options();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        Ok(Self {
            // A link stays if what it leads to is removed.
            path: if is_new {
                path.canonicalize()?
            } else {
                path.to_owned()
            },
            file,
            is_new,
            is_written: false,
        })
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.is_written = true;
        // A pipe or a device holds nothing.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(bytes)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.is_new && !self.is_written {
            // It is empty, and no more than in the way.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes to standard output. That nobody reads on is no error.
///
/// # Errors
/// It can't be written to.
pub(crate) fn print(texts: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for text in texts {
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("standard output cannot be written to")?,
        }
    }
    Ok(())
}

/// A bar on standard error, if people look at it; it goes away when it is dropped.
pub(crate) fn progress_bar(quiet: bool, template: &str) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0)
        .with_style(style.unwrap_or(ProgressStyle::default_bar()))
        .with_finish(ProgressFinish::AndClear)
}

/// Tells a bar how many are done, of how many.
pub(crate) fn advance(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds_is_replaced_by_a_report_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("old"), "a long old report").unwrap();
        std::os::unix::fs::symlink(path("behind"), path("link")).unwrap();
        let open = |name: &str| Output::create(Some(&path(name))).unwrap();
        for name in ["old", "new", "link"] {
            drop(open(name));
            assert!(open(name).write(|| anyhow::bail!("no text")).is_err());
        }
        assert_eq!(fs::read(path("old")).unwrap(), b"a long old report");
        assert!(!path("new").exists() && !path("behind").exists());
        assert!(path("link").is_symlink());

        for name in ["old", "new", "link"] {
            open(name).write(|| Ok("report".to_owned())).unwrap();
            assert_eq!(fs::read(path(name)).unwrap(), b"report");
        }
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().join("no/such"), directory.path().into()] {
            assert!(Output::create(Some(&path)).is_err());
        }
    }

    #[test]
    fn devices_are_written_as_they_are() {
        let write = |path: &str| {
            let output = Output::create(Some(Path::new(path)));
            output.unwrap().write(|| Ok("report".to_owned()))
        };
        write("/dev/null").unwrap();
        let full = write("/dev/full").unwrap_err();
        assert!(format!("{full:#}").contains("No space left"), "{full:#}");
        assert!(Path::new("/dev/full").exists());
    }
}
