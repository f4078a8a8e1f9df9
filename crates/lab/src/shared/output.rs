//! Where reports go: files, standard output, and a progress bar until then.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use serde::Serialize;

/// A file for a report. It is opened before the work, so that a file that can't be written is known early. Its content
/// stays until there is a report.
#[derive(Debug)]
pub(crate) struct Output(Option<Opened>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    file: File,
    /// The file did not exist before.
    is_new: bool,
    is_written: bool,
}

impl Output {
    /// Opens the file, if there is a path; `-` is standard output.
    ///
    /// # Errors
    /// The file can't be written.
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

    /// Replaces the file's content by the report, if there is a file.
    ///
    /// # Errors
    /// The report can't be made, or the file can't be written.
    pub(crate) fn write<R: AsRef<[u8]>>(
        self,
        report: impl FnOnce() -> anyhow::Result<R>,
    ) -> anyhow::Result<()> {
        if let Some(mut opened) = self.0 {
            let report = report()?;
            opened
                .replace(report.as_ref())
                .with_context(|| format!("cannot write {}", opened.path.display()))?;
        }
        Ok(())
    }

    /// Replaces the file's content by the report as indented JSON, if there is a file.
    ///
    /// # Errors
    /// As [`write`](Self::write).
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
            // A symbolic link has to stay if its target is removed.
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
        // Pipes and devices cannot be truncated.
        if self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write_all(bytes)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.is_new && !self.is_written {
            // The file is empty, because the work ended without a report.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Writes to standard output. A reader that leaves is no error.
///
/// # Errors
/// Standard output can't be written to.
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

/// A progress bar, if standard error is a terminal. It disappears when it is dropped.
pub(crate) fn progress_bar(quiet: bool, template: &str) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(0)
        .with_style(style.unwrap_or(ProgressStyle::default_bar()))
        .with_finish(ProgressFinish::AndClear)
}

/// Moves a bar to `done` of `all`.
pub(crate) fn advance(bar: &ProgressBar, done: u64, all: u64) {
    bar.set_length(all);
    bar.set_position(done);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_report_replaces_the_content_of_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("old"), "a long old report").unwrap();
        std::os::unix::fs::symlink(path("behind"), path("link")).unwrap();
        let open = |name: &str| Output::create(Some(&path(name))).unwrap();
        for name in ["old", "new", "link"] {
            drop(open(name));
            assert!(
                open(name)
                    .write(|| -> anyhow::Result<String> { anyhow::bail!("no text") })
                    .is_err()
            );
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
    fn a_file_that_cannot_be_written_is_known_before_the_work() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().join("no/such"), directory.path().into()] {
            assert!(Output::create(Some(&path)).is_err());
        }
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
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
