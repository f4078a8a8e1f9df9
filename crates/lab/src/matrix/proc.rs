use std::fmt;
use std::fs;

/// A process, as `/proc/PID/stat` tells of it (proc(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: i32,
    pub(super) name: String,
    /// It has ended, and its parent has not asked how.
    pub(super) is_zombie: bool,
    pub(super) parent: i32,
    /// When it was started, in clock ticks since the machine was.
    pub(super) started: u64,
}

impl Process {
    /// `None` if there is none, or it can't be seen.
    pub(super) fn of(id: i32) -> Option<Self> {
        parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    /// All that can be seen.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| Self::of(entry.file_name().to_str()?.parse().ok()?))
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.id)
    }
}

fn parse(stat: &str) -> Option<Process> {
    // The name stands in parentheses and may hold some itself.
    let (id, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    // Fields 4 and 22 of the line.
    let started = fields.nth(17)?.parse().ok()?;
    Some(Process {
        id: id.parse().ok()?,
        name: name.to_owned(),
        is_zombie,
        parent,
        started,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_line() {
        let stat = "17 (a) b (c) S 3 17 17 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 99 5 18";
        let process = parse(stat).unwrap();
        assert_eq!(process.to_string(), "a) b (c (17)");
        assert_eq!((process.parent, process.started), (3, 4711));
        assert!(!process.is_zombie);
        assert_eq!(parse("17 (a)"), None);
    }

    #[test]
    fn this_process_is_among_all() {
        let id = i32::try_from(std::process::id()).unwrap();
        let one = Process::of(id).unwrap();
        assert!(Process::all().any(|process| process == one));
    }
}
