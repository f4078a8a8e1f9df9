//! The taker that keeps the newest records of one role in a directory.

mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rstlab_wire::{monotonic_now, nanos};

use crate::ended::{Ended, Taker, Teller, Wants};
use crate::evidence::canonical;
use crate::records::{EndsFile, Keeping, Record, RecordDirectory, Role, ServerEnd};
use writer::Writer;

/// Keeps records in a directory. No call waits for the disk.
#[derive(Debug)]
pub struct Recorder {
    writer: Writer,
    role: Role,
}

impl Recorder {
    /// Keeps the newest records of `role` in a directory, as `keeping` says, one file each
    /// (`127.0.0.1_8000-127.0.0.1_45678.proxy.json`), at most 256 KiB long; older ones of that role are removed, those
    /// of an earlier run too. Proxy and upstream may share the directory. Packets that were captured lie beside their
    /// record, with the ending `pcapng`, as long as it does.
    ///
    /// A lone record is written at once. The writing thread rests most of its time; when records come faster than that,
    /// they wait, in at most 24 MiB of memory, and the others are dropped, counted and logged. The drop of the recorder
    /// writes the records that still wait.
    ///
    /// # Errors
    /// The directory cannot be made or written to, or another user may replace files in it; the text says what to do.
    pub fn to_dir(dir: &Path, role: Role, keeping: Keeping) -> io::Result<Self> {
        let directory = RecordDirectory::open(dir, role, keeping)?;
        let ends = EndsFile::of(directory.directory());
        if role == Role::Upstream {
            ends.begin()?;
        }
        let writer = Writer::start(directory, ends)?;
        Ok(Self { writer, role })
    }

    /// Keeps a record. Never waits, and never fails: a disk's error is logged.
    pub fn keep(&self, record: &Arc<Record>) {
        self.writer.push(record);
    }
}

impl Taker for Recorder {
    fn wants(&self) -> Wants {
        Wants::Records
    }

    fn has_room(&self) -> bool {
        self.writer.has_room()
    }

    /// Tells a proxy that shares the directory how the upstream's socket ended, before the verdict is known.
    fn facts(&self, ended: &Ended) {
        if self.role == Role::Upstream
            && let (Some(connection), Teller::Upstream(end)) = (ended.connection, &ended.teller)
        {
            self.writer.tell(ServerEnd {
                at_ns: nanos(monotonic_now()),
                server: canonical(connection.server),
                client: canonical(connection.client),
                side: end.side,
            });
        }
    }

    fn take(&self, ended: &Arc<Ended>) {
        if let Some(record) = &ended.record {
            self.keep(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, Instant, SystemTime};

    use super::*;
    use crate::ended::ended_with;
    use crate::evidence::Pair;
    use crate::packets::{packets_of_a_request, packets_of_a_reset};
    use crate::records::Ends;
    use crate::records::{lazy, lazy_upstream};

    fn from_port(port: u16) -> Record {
        let mut record = lazy();
        record.client.set_port(port);
        record
    }

    fn most(most: usize) -> Keeping {
        Keeping {
            most,
            ..Keeping::default()
        }
    }

    fn keep(recorder: &Recorder, record: Record) {
        recorder.keep(&Arc::new(record));
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

    /// Waits until `look` finds something.
    fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "nothing was found in a minute"
            );
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_lone_record_is_written_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/for/it");
        let upstream = Recorder::to_dir(&dir, Role::Upstream, most(10)).unwrap();
        let record = lazy_upstream();
        keep(&upstream, record.clone());
        let path = dir.join("127.0.0.1_8000-127.0.0.1_32814.upstream.json");
        let found = until(|| Record::read(&path).ok());
        assert_eq!(found, record);
        let merged = lazy().merge(found).unwrap();
        assert_eq!(merged.verdict.unread_bytes, Some(0));
    }

    #[test]
    fn the_proxy_is_told_at_once_however_many_records_wait() {
        let dir = tempfile::tempdir().unwrap();
        let mut ends = Ends::of(dir.path());
        assert!(!ends.are_told());
        let upstream = Recorder::to_dir(dir.path(), Role::Upstream, most(100)).unwrap();
        assert!(ends.are_told());
        let Record { server, .. } = lazy_upstream();
        let side = lazy_upstream().evidence.server.unwrap();
        let since = monotonic_now();
        for port in 1..=1000 {
            let ended = Arc::new(ended_with(from_port(port)));
            upstream.facts(&ended);
            upstream.take(&ended);
        }
        let mut told = |port| ends.find(Pair::new(server, from_port(port).client), since);
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
        let keep_one = |record| {
            let recorder = Recorder::to_dir(dir.path(), Role::Proxy, most(2)).unwrap();
            keep(&recorder, record);
        };
        (1..=3).map(with_packets).for_each(keep_one);
        let name = |port, kind| format!("127.0.0.1_8000-127.0.0.1_{port}.proxy.{kind}");
        let pair = |port| [name(port, "json"), name(port, "pcapng")];
        assert_eq!(names(dir.path()), [pair(2), pair(3)].concat());
        let read = crate::packets::read_pcapng(dir.path().join(name(3, "pcapng"))).unwrap();
        assert_eq!(read.packets().count(), 3);
        // The port is in use again, and nothing was captured.
        keep_one(from_port(3));
        // A program killed between the two files left the second, one killed while it wrote the third; the first is the
        // other role's.
        let others = ["a.upstream.pcapng", "b.proxy.pcapng", ".c.proxy.pcapng.tmp"];
        for name in others {
            fs::write(dir.path().join(name), "").unwrap();
        }
        keep_one(from_port(2));
        let left = [
            &pair(2)[..1],
            &pair(3)[..1],
            &["a.upstream.pcapng".to_owned()],
        ];
        assert_eq!(names(dir.path()), left.concat());
    }

    #[test]
    fn a_capture_has_payload_and_credentials_only_if_they_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nCookie: secret\r\n\r\n{}",
            "x".repeat(99)
        );
        let record = Record {
            packets: Some(packets_of_a_request(&head)),
            ..lazy()
        };
        let path = dir
            .path()
            .join("127.0.0.1_8000-127.0.0.1_32814.proxy.pcapng");
        for payload in [true, false] {
            let keeping = Keeping { payload, ..most(2) };
            let recorder = Recorder::to_dir(dir.path(), Role::Proxy, keeping).unwrap();
            keep(&recorder, record.clone());
            drop(recorder);
            let file = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&file);
            let found = [&head, "Cookie: secret", "Cookie: ******"].map(|it| text.contains(it));
            assert_eq!(found, [payload, payload, !payload]);
            // The lengths are those of the packet, however much of it is kept.
            let read = crate::packets::read_pcapng(&path).unwrap();
            let lengths = read.packets().map(|it| it.payload_bytes as usize);
            assert_eq!(lengths.collect::<Vec<_>>(), [head.len()]);
        }
    }

    #[test]
    fn the_drop_writes_the_newest_records_and_removes_older_ones() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::to_dir(dir.path(), Role::Proxy, most(10)).unwrap();
        for port in 1000..2000 {
            keep(&recorder, from_port(port));
        }
        drop(recorder);
        assert_eq!(clients(dir.path()), Vec::from_iter(1990..2000));
    }

    #[test]
    fn records_of_an_earlier_run_count_and_records_of_the_other_role_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Recorder::to_dir(dir.path(), Role::Upstream, most(10)).unwrap();
        keep(&upstream, lazy_upstream());
        drop(upstream);
        let proxy = Recorder::to_dir(dir.path(), Role::Proxy, most(10)).unwrap();
        (1..=5).for_each(|port| keep(&proxy, from_port(port)));
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
        let proxy = Recorder::to_dir(dir.path(), Role::Proxy, most(3)).unwrap();
        keep(&proxy, from_port(9));
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
        let recorder = Recorder::to_dir(dir.path(), Role::Proxy, most(2)).unwrap();
        let mut again = from_port(1);
        again.request = Some("POST /again".to_owned());
        for port in [1, 2] {
            keep(&recorder, from_port(port));
            until(|| clients(dir.path()).contains(&port).then_some(()));
        }
        keep(&recorder, again.clone());
        drop(recorder);
        assert_eq!(clients(dir.path()), [1, 2]);
        let path = dir.path().join("127.0.0.1_8000-127.0.0.1_1.proxy.json");
        assert_eq!(Record::read(&path).unwrap(), again);
    }

    #[test]
    fn file_names_are_safe_and_only_the_owner_may_read_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::to_dir(dir.path(), Role::Upstream, most(5)).unwrap();
        let mut record = lazy();
        record.server = "[fe80::1%3]:80".parse().unwrap();
        record.client = "[::ffff:10.0.0.1]:4000".parse().unwrap();
        keep(&recorder, record);
        drop(recorder);
        let names = names(dir.path());
        let expected = [
            "fe80__1_80-10.0.0.1_4000.upstream.json",
            "upstream.ends.jsonl",
        ];
        assert_eq!(names, expected);
        for name in names {
            let mode = fs::metadata(dir.path().join(name)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Recorder::to_dir(&file, Role::Proxy, most(5))
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
    fn a_directory_that_is_gone_does_not_stop_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::to_dir(dir.path(), Role::Proxy, most(5)).unwrap();
        dir.close().unwrap();
        (1..100).for_each(|port| keep(&recorder, from_port(port)));
    }
}
