//! A trace instance of our own under tracefs.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use procfs::ProcResult;
use procfs::process::Process;

use crate::process::started;
use crate::unavailable::Unavailable;

const MOUNTS: &str = "/proc/self/mounts";

/// The name of an instance of ours begins with this; its [`InstanceOwner`] and a number follow.
const PREFIX: &str = "rstlab-";

/// A file of an instance that several processes may have open. While one of them has, the kernel does not remove the
/// instance (EBUSY).
const HELD: &str = "tracing_on";

/// An instance of another pid namespace, whose owner cannot be looked up, is removed if it is older than this and
/// nobody holds it. Its owner holds it within a millisecond.
const FRESH: Duration = Duration::from_secs(60);

/// Most tries to make an instance: another process may remove a new instance before it is held, if this process was
/// stopped for longer than [`FRESH`] between the two steps.
const MAX_TRIES: u32 = 3;

/// Most tries to remove an instance that is busy, and the pause between them.
const MAX_BUSY_TRIES: u32 = 100;
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// A trace buffer of our own under tracefs: we neither see nor disturb what others trace.
///
/// The drop of this value removes the instance; the files in it must be closed by then.
#[derive(Debug)]
pub(crate) struct Instance {
    path: PathBuf,
    /// An open file, so that nobody else removes the instance.
    held: Option<fs::File>,
}

/// Who has made an instance, in any pid namespace and at any time: in each container the first process has the
/// number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct InstanceOwner {
    pid: i32,
    /// Milliseconds since boot.
    started: u128,
    /// The inode of its pid namespace. A later namespace may have the same.
    namespace: u64,
}

impl Instance {
    /// Makes an instance, and removes those that killed runs have left.
    pub(crate) fn create() -> Result<Self, Unavailable> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string(MOUNTS)
            .map_err(|error| Unavailable::new("read", Path::new(MOUNTS), error))?;
        let instances = mount_point(&mounts)
            .ok_or(Unavailable::NotMounted)?
            .join("instances");
        let own = InstanceOwner::this_process()?;
        let numbers_are_ours = proc_has_our_numbers();
        let has_ended = |owner: InstanceOwner| {
            let decidable = numbers_are_ours && owner.namespace == own.namespace;
            decidable.then(|| started_ms(Process::new(owner.pid)) != Some(owner.started))
        };
        remove_stale(&instances, SystemTime::now(), has_ended)
            .map_err(|error| Unavailable::new("list", &instances, error))?;
        let mut tries = 0;
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = instances.join(own.instance(number));
            fs::create_dir(&path).map_err(|error| Unavailable::new("create", &path, error))?;
            let mut instance = Self { path, held: None };
            tries += 1;
            match instance.open(HELD) {
                Ok(held) => {
                    instance.held = Some(held);
                    return Ok(instance);
                }
                Err(_) if tries < MAX_TRIES && !instance.path.exists() => {}
                Err(error) => return Err(error),
            }
        }
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
        drop(self.held.take());
        // Removing it ends its events too (`event_trace_del_tracer`). A process that this one is just starting
        // holds our files until it runs its own program: busy for a moment.
        for _ in 0..MAX_BUSY_TRIES {
            match fs::remove_dir(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
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

/// Where tracefs is: mounted by itself, or inside debugfs, where the kernel mounts it at the first look.
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

impl InstanceOwner {
    fn this_process() -> Result<Self, Unavailable> {
        let path = Path::new("/proc/self/ns/pid");
        let failed = |error| Unavailable::new("read", path, error);
        Ok(Self {
            pid: process::id().cast_signed(),
            started: started_ms(Process::myself()).unwrap_or_default(),
            namespace: fs::metadata(path).map_err(failed)?.ino(),
        })
    }

    /// The name of an instance of this owner.
    fn instance(&self, number: u32) -> String {
        let Self {
            pid,
            started,
            namespace,
        } = self;
        format!("{PREFIX}{pid}-{started}-{namespace}-{number}")
    }

    /// The owner of the instance with that name.
    fn of(instance: &str) -> Option<Self> {
        let mut words = instance.strip_prefix(PREFIX)?.split('-');
        let owner = Self {
            pid: words.next()?.parse().ok()?,
            started: words.next()?.parse().ok()?,
            namespace: words.next()?.parse().ok()?,
        };
        let number: u32 = words.next()?.parse().ok()?;
        (owner.instance(number) == instance).then_some(owner)
    }
}

fn started_ms(process: ProcResult<Process>) -> Option<u128> {
    Some(started(&process.ok()?.stat().ok()?).as_millis())
}

/// Whether `/proc` is that of our pid namespace, and not of one around it: `NSpid` begins with the number there, and
/// ends with ours.
fn proc_has_our_numbers() -> bool {
    let status = Process::myself().and_then(|process| process.status());
    let numbers = status.ok().and_then(|status| status.nspid);
    numbers.is_some_and(|numbers| numbers.len() == 1)
}

/// Removes the instances of processes that have ended. Where that cannot be decided, it removes instances that are not
/// fresh; the kernel keeps those that are held.
fn remove_stale(
    instances: &Path,
    now: SystemTime,
    has_ended: impl Fn(InstanceOwner) -> Option<bool>,
) -> io::Result<()> {
    for entry in fs::read_dir(instances)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(InstanceOwner::of) else {
            continue;
        };
        let made = || entry.metadata()?.modified();
        let is_fresh = || made().is_ok_and(|made| now < made + FRESH);
        if has_ended(owner).unwrap_or_else(|| !is_fresh()) {
            let path = entry.path();
            match fs::remove_dir(&path) {
                Ok(()) => tracing::info!("removed {}, left by a killed run", path.display()),
                Err(error) => tracing::debug!("cannot remove {}: {error}", path.display()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracefs_is_found_wherever_it_is_mounted() {
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
    fn tracefs_is_found_inside_debugfs() {
        let debugfs = tempfile::tempdir().unwrap();
        let mounts = format!("none {} debugfs rw 0 0\n", debugfs.path().display());
        assert_eq!(mount_point(&mounts), None, "nothing inside");
        let tracing = debugfs.path().join("tracing");
        fs::create_dir_all(tracing.join("instances")).unwrap();
        assert_eq!(mount_point(&mounts), Some(tracing));
    }

    fn owner(pid: i32, started: u128, namespace: u64) -> InstanceOwner {
        InstanceOwner {
            pid,
            started,
            namespace,
        }
    }

    #[test]
    fn the_name_of_an_instance_tells_its_owner() {
        let this = InstanceOwner::this_process().unwrap();
        assert_eq!(
            (this.pid, InstanceOwner::of(&this.instance(7))),
            (process::id().cast_signed(), Some(this))
        );
        assert_eq!(started_ms(Process::myself()), Some(this.started));
        assert_eq!(
            InstanceOwner::of("rstlab-1-20-300-0"),
            Some(owner(1, 20, 300))
        );
        for other in [
            "other",
            "rstlab-7-0",
            "rstlab-x-2-3-0",
            "rstlab-1-2-3",
            "rstlab-01-2-3-0",
            "rstlab-1-2-3-0-0",
        ] {
            assert_eq!(InstanceOwner::of(other), None, "{other}");
        }
    }

    /// The first process of another container has the same number as ours, and so had a killed one.
    #[test]
    fn instances_of_ended_processes_are_removed_and_old_ones_that_nobody_holds() {
        let instances = tempfile::tempdir().unwrap();
        let make = |owner: InstanceOwner, number| {
            let path = instances.path().join(owner.instance(number));
            fs::create_dir(&path).unwrap();
            path
        };
        let alive = owner(1, 50, 300);
        let of_us = make(alive, 0);
        let of_an_earlier = make(owner(1, 20, 300), 0);
        let of_another = make(owner(1, 50, 400), 0);
        let held = make(owner(1, 50, 400), 1);
        // As the kernel refuses with EBUSY, so does a directory that is not empty.
        fs::write(held.join(HELD), "1").unwrap();
        let look = |now| {
            let has_ended = |it: InstanceOwner| (it.namespace == 300).then_some(it != alive);
            remove_stale(instances.path(), now, has_ended).unwrap();
            [&of_us, &of_an_earlier, &of_another, &held].map(|path| path.exists())
        };
        let now = SystemTime::now();
        assert_eq!(look(now), [true, false, true, true]);
        assert_eq!(look(now + 2 * FRESH), [true, false, false, true]);
    }
}
