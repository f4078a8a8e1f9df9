use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const MOUNTS: &str = "/proc/self/mounts";

/// How an instance of ours is named: `rstlab-<pid>-<n>`.
const PREFIX: &str = "rstlab-";

/// How often, and with what pause, an instance that is busy is removed again.
const BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// Why the kernel cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No tracefs.
    #[error("tracefs is not mounted; as root: mount -t tracefs tracefs /sys/kernel/tracing")]
    NotMounted,
    /// Not root.
    #[error("{} is for root only: run this as root (sudo), in a container with --privileged", path.display())]
    Forbidden {
        /// What could not be opened.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A kernel built without it, or older than 4.16.
    #[error("this kernel has no tracepoint tcp:tcp_send_reset: {} is missing", path.display())]
    NoTracepoint {
        /// Where it would be.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot {doing} {}", path.display())]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Unavailable {
    fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => Unavailable::Forbidden { path, source },
            _ => Unavailable::Failed {
                doing,
                path,
                source,
            },
        }
    }
}

/// A trace buffer of our own under tracefs, so that we neither see nor disturb what others trace.
///
/// It is removed when this is dropped; files in it must be closed by then.
#[derive(Debug)]
pub(crate) struct Instance {
    path: PathBuf,
}

impl Instance {
    /// Makes one, and removes what killed runs have left.
    pub(crate) fn create() -> Result<Self, Unavailable> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string(MOUNTS)
            .map_err(|error| Unavailable::new("read", Path::new(MOUNTS), error))?;
        let instances = mount_point(&mounts)
            .ok_or(Unavailable::NotMounted)?
            .join("instances");
        remove_stale(&instances, process::id(), |pid| {
            Path::new("/proc").join(pid.to_string()).exists()
        })
        .map_err(|error| Unavailable::new("list", &instances, error))?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = instances.join(format!("{PREFIX}{}-{number}", process::id()));
        fs::create_dir(&path).map_err(|error| Unavailable::new("create", &path, error))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn read(&self, file: &str) -> Result<String, Unavailable> {
        let path = self.path.join(file);
        fs::read_to_string(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Unavailable::NoTracepoint { path },
            _ => Unavailable::new("read", &path, error),
        })
    }

    pub(crate) fn write(&self, file: &str, value: &str) -> Result<(), Unavailable> {
        let path = self.path.join(file);
        fs::write(&path, value).map_err(|error| Unavailable::new("write to", &path, error))
    }

    pub(crate) fn open(&self, file: &str) -> Result<fs::File, Unavailable> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let path = self.path.join(file);
        fs::File::options()
            .read(true)
            .custom_flags(nonblocking)
            .open(&path)
            .map_err(|error| Unavailable::new("open", &path, error))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Removing it ends its events too (`event_trace_del_tracer`). A process that this one is just starting
        // holds our files until it runs its own program: busy for a moment.
        for _ in 0..BUSY_TRIES {
            match fs::remove_dir(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    thread::sleep(BUSY_PAUSE);
                }
                Err(error) => {
                    tracing::warn!("cannot remove {}: {error}", self.path.display());
                    return;
                }
            }
        }
        tracing::warn!("cannot remove {}: it is in use", self.path.display());
    }
}

/// Where tracefs is: mounted by itself, or inside debugfs, where it appears when one looks.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    let of_type = |wanted| {
        mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (path, fs_type) = (words.next()?, words.next()?);
            (fs_type == wanted).then(|| PathBuf::from(unescaped(path)))
        })
    };
    of_type("tracefs").or_else(|| {
        let inside = of_type("debugfs")?.join("tracing");
        inside.join("instances").exists().then_some(inside)
    })
}

/// A path in `/proc/self/mounts` has a blank as `\040`, a tab as `\011`, a backslash as `\134`.
fn unescaped(path: &str) -> String {
    path.replace(r"\040", " ")
        .replace(r"\011", "\t")
        .replace(r"\134", r"\")
}

/// Removes the instances of processes that are not alive. One that is in use in spite of that (its process has
/// another number in our pid namespace) stays: the kernel says EBUSY.
fn remove_stale(instances: &Path, own: u32, alive: impl Fn(u32) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(instances)? {
        let entry = entry?;
        let name = entry.file_name();
        let pid = name.to_str().and_then(owner);
        if pid.is_some_and(|pid| pid != own && !alive(pid)) {
            let path = entry.path();
            match fs::remove_dir(&path) {
                Ok(()) => tracing::info!("removed {}, left by a killed run", path.display()),
                Err(error) => tracing::debug!("cannot remove {}: {error}", path.display()),
            }
        }
    }
    Ok(())
}

/// The process that an instance is named after.
fn owner(name: &str) -> Option<u32> {
    let (pid, number) = name.strip_prefix(PREFIX)?.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount_wherever_it_is() {
        let at = |mounts| mount_point(mounts).map(|path| path.display().to_string());
        let mounts = "proc /proc proc rw 0 0\ntracefs /sys/kernel/tracing tracefs rw,nosuid 0 0\n";
        assert_eq!(at(mounts).as_deref(), Some("/sys/kernel/tracing"));
        let mounts = "none /a\\040b\\134c tracefs rw 0 0\n";
        assert_eq!(at(mounts).as_deref(), Some("/a b\\c"));
        for none in [
            "",
            "tracefs",
            "x /nowhere debugfs rw 0 0\n",
            "tracefs /t ext4 rw 0 0\n",
        ] {
            assert_eq!(at(none), None, "{none:?}");
        }
    }

    #[test]
    fn tracing_inside_debugfs_will_do() {
        let debugfs = tempfile::tempdir().unwrap();
        let mounts = format!("none {} debugfs rw 0 0\n", debugfs.path().display());
        assert_eq!(mount_point(&mounts), None, "nothing inside");
        let tracing = debugfs.path().join("tracing");
        fs::create_dir_all(tracing.join("instances")).unwrap();
        assert_eq!(mount_point(&mounts), Some(tracing));
    }

    #[test]
    fn only_what_dead_processes_left_is_removed() {
        let instances = tempfile::tempdir().unwrap();
        let names = [
            "rstlab-7-0",
            "rstlab-8-0",
            "rstlab-9-3",
            "rstlab-x-0",
            "rstlab-8",
            "other",
        ];
        for name in names {
            fs::create_dir(instances.path().join(name)).unwrap();
        }
        remove_stale(instances.path(), 7, |pid| pid == 9).unwrap();
        let left = names.map(|name| instances.path().join(name).exists());
        assert_eq!(left, [true, false, true, true, true, true]);
    }

    #[test]
    fn errors_say_what_to_do() {
        let text = Unavailable::NotMounted.to_string();
        assert!(text.contains("mount -t tracefs tracefs /sys/kernel/tracing"));
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let text = Unavailable::new("list", Path::new("/t"), denied).to_string();
        assert!(text.contains("/t is for root only"), "{text}");
    }
}
