//! Keeps the newest records, without ever making the one who has them wait.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rstlab_wire::{monotonic_now, nanos};
use tokio::sync::mpsc::Sender;

use super::ends::{End, Ends, EndsFile};
use super::shelf::Shelf;
use super::writer::Writer;
use crate::{Pair, Record, Role, ServerSide};

/// Where records go. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Place>);

#[derive(Debug)]
enum Place {
    Directory(Box<Directory>),
    Channel(Sender<Record>),
    Everything(Sender<Record>),
}

#[derive(Debug)]
struct Directory {
    writer: Writer,
    ends: Mutex<Ends>,
}

impl Recorder {
    /// Keeps the newest `most` records of `role` in a directory, one file each
    /// (`127.0.0.1_8000-127.0.0.1_45678.proxy.json`), at most 256 KiB long; older ones of that role are removed, those
    /// of an earlier run too. Proxy and upstream may share the directory. Packets that were captured lie beside their
    /// record, with the ending `pcapng`, as long as it does.
    ///
    /// A lone record is written at once. When they come faster than a thread that rests most of its time can write
    /// them, only the newest `most` wait, and the more wait, the fewer connections are recorded. The last drop of a
    /// clone writes what still waits.
    ///
    /// # Errors
    /// The directory cannot be made or written to; the text says what to do.
    pub fn to_dir(dir: &Path, role: Role, most: usize) -> io::Result<Self> {
        let shelf = Shelf::open(dir, role, most)?;
        let told = EndsFile::of(dir);
        if role == Role::Upstream {
            told.begin()?;
        }
        let directory = Directory {
            writer: Writer::start(shelf, told)?,
            ends: Mutex::new(Ends::of(dir)),
        };
        Ok(Self(Arc::new(Place::Directory(Box::new(directory)))))
    }

    /// Hands each record to somebody in the same process; what finds the channel full is dropped.
    pub fn to_channel(sender: Sender<Record>) -> Self {
        Self(Arc::new(Place::Channel(sender)))
    }

    /// As [`Recorder::to_channel`], but every connection has a record, also one that nothing happened to.
    pub fn everything_to_channel(sender: Sender<Record>) -> Self {
        Self(Arc::new(Place::Everything(sender)))
    }

    /// Whether a record of this connection would be kept for a while: of very many at once only some are.
    pub(crate) fn wants(&self, server: SocketAddr, client: SocketAddr) -> bool {
        match &*self.0 {
            Place::Directory(directory) => directory.writer.wants(server, client),
            Place::Channel(_) | Place::Everything(_) => true,
        }
    }

    /// Whether a connection that ended well is to be recorded too.
    pub(crate) fn wants_everything(&self) -> bool {
        matches!(*self.0, Place::Everything(_))
    }

    /// Keeps a record. Never waits, and never fails: trouble with the disk is told in the log.
    pub fn keep(&self, record: Record) {
        match &*self.0 {
            Place::Directory(directory) => directory.writer.push(record),
            // Full, or nobody listens any more: the caller can do nothing about it.
            Place::Channel(sender) | Place::Everything(sender) => drop(sender.try_send(record)),
        }
    }

    /// Tells those who share the directory how a connection ended, as soon as it has. Never waits.
    pub(crate) fn tell(&self, server: SocketAddr, client: SocketAddr, side: ServerSide) {
        if let Place::Directory(directory) = &*self.0 {
            directory.writer.tell(End {
                at_ns: nanos(monotonic_now()),
                server,
                client,
                side,
            });
        }
    }

    /// Whether an upstream tells of its connections here.
    pub(crate) fn is_told(&self) -> bool {
        self.ends().is_some_and(|ends| ends.are_told())
    }

    /// What the upstream told of a connection that began at `since` or later. It may read some pages of a file.
    pub(crate) fn told(
        &self,
        server: SocketAddr,
        client: SocketAddr,
        since: Duration,
    ) -> Option<ServerSide> {
        self.ends()?.find(Pair::new(server, client), since)
    }

    fn ends(&self) -> Option<MutexGuard<'_, Ends>> {
        match &*self.0 {
            // No code panics while it holds the lock.
            Place::Directory(directory) => Some(
                directory
                    .ends
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            ),
            Place::Channel(_) | Place::Everything(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, Instant, SystemTime};

    use super::*;
    use crate::packets_of_a_reset;
    use crate::records::{lazy, lazy_upstream};

    fn from_port(port: u16) -> Record {
        let mut record = lazy();
        record.client.set_port(port);
        record
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn clients(dir: &Path) -> Vec<u16> {
        let names = names(dir).into_iter().filter(|name| !name.starts_with('.'));
        let read = |name| Record::read(&dir.join(name)).unwrap().client.port();
        let mut ports: Vec<_> = names.map(read).collect();
        ports.sort_unstable();
        ports
    }

    /// Waits until a lone record lies there.
    fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "it does not come"
            );
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_lone_record_is_written_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/for/it");
        let upstream = Recorder::to_dir(&dir, Role::Upstream, 10).unwrap();
        let record = lazy_upstream();
        upstream.keep(record.clone());
        let path = dir.join("127.0.0.1_8000-127.0.0.1_32814.upstream.json");
        let found = until(|| Record::read(&path).ok());
        assert_eq!(found, record);
        let merged = lazy().merge(found).unwrap();
        assert_eq!(merged.verdict.unread_bytes, Some(0));
    }

    #[test]
    fn the_proxy_is_told_at_once_however_many_records_wait() {
        let dir = tempfile::tempdir().unwrap();
        let proxy = Recorder::to_dir(dir.path(), Role::Proxy, 10).unwrap();
        assert!(!proxy.is_told());
        let upstream = Recorder::to_dir(dir.path(), Role::Upstream, 100).unwrap();
        assert!(proxy.is_told());
        let record = lazy_upstream();
        let side = record.evidence.server.unwrap();
        let since = monotonic_now();
        for port in 1..=1000 {
            upstream.keep(from_port(port));
            upstream.tell(record.server, from_port(port).client, side);
        }
        let told = |port| proxy.told(record.server, from_port(port).client, since);
        assert_eq!(until(|| told(1000)), side);
        assert!((1..1000).all(|port| told(port) == Some(side)));
    }

    #[test]
    fn packets_lie_beside_their_record_as_long_as_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let with_packets = |port| Record {
            packets: Some(packets_of_a_reset()),
            ..from_port(port)
        };
        let keep = |record| {
            Recorder::to_dir(dir.path(), Role::Proxy, 2)
                .unwrap()
                .keep(record);
        };
        (1..=3).map(with_packets).for_each(keep);
        let name = |port, kind| format!("127.0.0.1_8000-127.0.0.1_{port}.proxy.{kind}");
        let pair = |port| [name(port, "json"), name(port, "pcapng")];
        assert_eq!(names(dir.path()), [pair(2), pair(3)].concat());
        let read = crate::read_pcapng(dir.path().join(name(3, "pcapng"))).unwrap();
        assert_eq!(read.len(), 3);
        // The port is in use again, and nothing was captured.
        keep(from_port(3));
        // One was killed between the two files, one while it wrote; the third is somebody else's.
        let others = ["a.upstream.pcapng", "b.proxy.pcapng", ".c.proxy.pcapng.tmp"];
        for name in others {
            fs::write(dir.path().join(name), "").unwrap();
        }
        keep(from_port(2));
        let left = [
            &pair(2)[..1],
            &pair(3)[..1],
            &["a.upstream.pcapng".to_owned()],
        ];
        assert_eq!(names(dir.path()), left.concat());
    }

    #[test]
    fn the_last_drop_writes_the_newest_and_removes_older_ones() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::to_dir(dir.path(), Role::Proxy, 10).unwrap();
        for port in 1000..2000 {
            recorder.clone().keep(from_port(port));
        }
        drop(recorder);
        assert_eq!(clients(dir.path()), Vec::from_iter(1990..2000));
    }

    #[test]
    fn files_of_an_earlier_run_count_and_those_of_the_other_role_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Recorder::to_dir(dir.path(), Role::Upstream, 10).unwrap();
        upstream.keep(lazy_upstream());
        drop(upstream);
        let proxy = Recorder::to_dir(dir.path(), Role::Proxy, 10).unwrap();
        (1..=5).for_each(|port| proxy.keep(from_port(port)));
        drop(proxy);
        let now = SystemTime::now();
        for port in 1..=5_u64 {
            let path = dir
                .path()
                .join(format!("127.0.0.1_8000-127.0.0.1_{port}.proxy.json"));
            let file = fs::File::options().append(true).open(path).unwrap();
            // Port 1 is the newest.
            file.set_modified(now - Duration::from_secs(port)).unwrap();
        }
        fs::write(dir.path().join(".x.proxy.json.tmp"), "{").unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        let proxy = Recorder::to_dir(dir.path(), Role::Proxy, 3).unwrap();
        proxy.keep(from_port(9));
        drop(proxy);
        let expected = [
            "127.0.0.1_8000-127.0.0.1_1.proxy.json",
            "127.0.0.1_8000-127.0.0.1_2.proxy.json",
            "127.0.0.1_8000-127.0.0.1_32814.upstream.json",
            "127.0.0.1_8000-127.0.0.1_9.proxy.json",
            "notes.txt",
            "upstream.ends.jsonl",
        ];
        assert_eq!(names(dir.path()), expected);
    }

    #[test]
    fn a_port_in_use_again_has_one_record() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::to_dir(dir.path(), Role::Proxy, 2).unwrap();
        let mut again = from_port(1);
        again.request = Some("POST /again".to_owned());
        for port in [1, 2] {
            recorder.keep(from_port(port));
            until(|| clients(dir.path()).contains(&port).then_some(()));
        }
        recorder.keep(again.clone());
        drop(recorder);
        assert_eq!(clients(dir.path()), [1, 2]);
        let path = dir.path().join("127.0.0.1_8000-127.0.0.1_1.proxy.json");
        assert_eq!(Record::read(&path).unwrap(), again);
    }

    #[test]
    fn names_are_safe_and_files_are_readable_by_all() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::to_dir(dir.path(), Role::Upstream, 5).unwrap();
        let mut record = lazy();
        record.server = "[fe80::1%3]:80".parse().unwrap();
        record.client = "[::ffff:10.0.0.1]:4000".parse().unwrap();
        recorder.keep(record);
        drop(recorder);
        let names = names(dir.path());
        let expected = [
            "fe80__1_80-10.0.0.1_4000.upstream.json",
            "upstream.ends.jsonl",
        ];
        assert_eq!(names, expected);
        for name in names {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o644);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_an_error_that_helps() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Recorder::to_dir(&file, Role::Proxy, 5)
            .unwrap_err()
            .to_string();
        for part in [
            "no records can be written to ",
            "/file (",
            "name a directory that this user (uid ",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_directory_that_is_gone_does_not_stop_the_one_who_records() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::to_dir(dir.path(), Role::Proxy, 5).unwrap();
        dir.close().unwrap();
        (1..100).for_each(|port| recorder.keep(from_port(port)));
    }

    #[tokio::test]
    async fn a_channel_takes_what_it_has_room_for() {
        let (sender, mut records) = tokio::sync::mpsc::channel(2);
        let recorder = Recorder::to_channel(sender);
        (1..=3).for_each(|port| recorder.keep(from_port(port)));
        drop(recorder);
        assert_eq!(records.recv().await.unwrap().client.port(), 1);
        assert_eq!(records.recv().await.unwrap().client.port(), 2);
        assert_eq!(records.recv().await, None);
    }
}
