//! A directory in which no other user can redirect a write: its files are made anew, relative to its descriptor.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// The bit of a directory's mode with which only a file's owner may remove or rename the file (inode(7)).
const STICKY: u32 = 0o1000;
/// The bits that allow the group and all others to write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A directory whose files are opened by name relative to its descriptor, and never through a symbolic link.
#[derive(Debug)]
pub(crate) struct SafeDirectory {
    fd: OwnedFd,
    /// The mode of each file that is made.
    mode: Mode,
}

impl SafeDirectory {
    /// Opens the directory, and makes it if need be; files in it will have `mode`.
    ///
    /// # Errors
    /// The path cannot be opened or is a symbolic link, or another user may replace files in the directory.
    pub(crate) fn open(path: &Path, mode: u32) -> io::Result<Self> {
        let searchable = mode | (mode & 0o444) >> 2;
        let mut made = DirBuilder::new();
        made.recursive(true).mode(searchable | 0o700).create(path)?;
        let fd = open_directory(path)?;
        let stat = rustix::fs::fstat(&fd)?;
        if let Some(why) = why_unsafe(stat.st_mode) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let mode = Mode::from_raw_mode(mode);
        Ok(Self { fd, mode })
    }

    /// Writes a file under another name first: a reader never sees half of one.
    pub(crate) fn place(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = format!(".{name}.tmp");
        let written = self.make(&unfinished).and_then(|mut file| {
            file.write_all(bytes)?;
            Ok(rustix::fs::renameat(&self.fd, &unfinished, &self.fd, name)?)
        });
        if written.is_err() {
            // The file may not be there; the first error is the one to report.
            let _ = self.remove(&unfinished);
        }
        written
    }

    /// Opens a file of this user to append to it.
    pub(crate) fn append(&self, name: &str) -> io::Result<File> {
        let file = open_file(&self.fd, name, OFlags::WRONLY | OFlags::APPEND)?;
        if is_own(&rustix::fs::fstat(&file)?) {
            return Ok(file);
        }
        let why = format!("{name} belongs to another user");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
    }

    /// Removes a file that may be gone already.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// The names of this user's files, those first that were written first.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.fd)? {
            // A name that is no text is not of a file of ours.
            let Ok(name) = entry?.file_name().to_owned().into_string() else {
                continue;
            };
            match rustix::fs::statat(&self.fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_file(&stat) && is_own(&stat) => {
                    found.push(((stat.st_mtime, stat.st_mtime_nsec), name));
                }
                // Another program may just have removed it.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, name)| name).collect())
    }

    /// Makes a file that was not there.
    fn make(&self, name: &str) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.fd, name, flags, self.mode);
        let made = match open() {
            // A program that was killed while it wrote has left it.
            Err(Errno::EXIST) => {
                self.remove(name)?;
                open()
            }
            made => made,
        };
        let file = made?;
        // The umask may have taken rights away.
        rustix::fs::fchmod(&file, self.mode)?;
        Ok(file.into())
    }
}

/// Opens a directory, unless the last part of its path is a symbolic link, which another user may have put there.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| match path.is_symlink() {
        true => io::Error::new(
            io::ErrorKind::NotADirectory,
            "it is a symbolic link; name the directory that it leads to",
        ),
        false => error.into(),
    })
}

/// Opens a regular file, never through a symbolic link. Without NONBLOCK, opening a pipe that somebody put there would
/// wait for the other side.
pub(crate) fn open_file(directory: &OwnedFd, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    if is_file(&rustix::fs::fstat(&file)?) {
        return Ok(file.into());
    }
    let why = format!("{name} is no regular file");
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

fn is_own(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Why other users may replace files in a directory of this mode, and what to do; `None` if at most its owner may.
///
/// The owner is this user, or root, or has been named by root: then the owner can take records away, and cannot
/// redirect a write.
fn why_unsafe(mode: u32) -> Option<String> {
    (mode & STICKY == 0 && mode & WRITABLE_BY_OTHERS != 0).then(|| {
        format!(
            "other users may replace files in it, its mode is {:04o}: take their right to write away (chmod go-w), \
             or set its sticky bit (chmod +t) if several users share it",
            mode & 0o7777
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_in_which_another_user_may_replace_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, is_safe) in [
            (0o700, true),
            (0o755, true),
            (0o775, false),
            (0o702, false),
            (0o777, false),
            (0o2770, false),
            (0o1777, true),
            (0o1770, true),
        ] {
            chmod(dir.path(), mode);
            let opened = SafeDirectory::open(dir.path(), 0o600);
            assert_eq!(opened.is_ok(), is_safe, "{mode:o}");
            if let Err(error) = opened {
                let text = error.to_string();
                assert!(text.contains(&format!("its mode is {mode:04o}")), "{text}");
                assert!(text.contains("chmod go-w"), "{text}");
            }
        }
    }

    #[test]
    fn a_directory_that_is_made_can_be_searched_by_those_who_may_read_its_files() {
        let dir = tempfile::tempdir().unwrap();
        for (of_files, of_directory) in [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755)] {
            let path = dir.path().join(format!("{of_files:o}"));
            SafeDirectory::open(&path, of_files).unwrap();
            assert_eq!(mode(&path), of_directory);
        }
    }

    #[test]
    fn a_symbolic_link_is_neither_followed_as_a_directory_nor_as_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let (link, victim) = (dir.path().join("link"), dir.path().join("victim"));
        symlink(dir.path(), &link).unwrap();
        let error = SafeDirectory::open(&link, 0o600).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        fs::write(&victim, "mine").unwrap();
        let directory = SafeDirectory::open(dir.path(), 0o600).unwrap();
        for name in ["a", ".a.tmp"] {
            symlink(&victim, dir.path().join(name)).unwrap();
        }
        directory.append("a").unwrap_err();
        directory.place("a", b"record").unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"record");
        assert!(!dir.path().join("a").is_symlink());
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    }

    #[test]
    fn a_directory_that_is_renamed_still_takes_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let [here, there] = ["here", "there"].map(|name| dir.path().join(name));
        let directory = SafeDirectory::open(&here, 0o640).unwrap();
        fs::rename(&here, &there).unwrap();
        fs::create_dir(&here).unwrap();
        directory.place("a", b"record").unwrap();
        assert_eq!(mode(&there.join("a")), 0o640);
        assert_eq!(fs::read_dir(&here).unwrap().count(), 0);
        assert_eq!(directory.names().unwrap(), ["a"]);
    }
}
